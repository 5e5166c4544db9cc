/* elements_table.h - the table of what elements_body.h and rows_body.h made, under the name TABLE. */
#define ALL_MAPS(of)                                                                                                              \
  {of(negative), of(exp), of(log), of(sqrt), of(square), of(reciprocal), of(abs), of(relu), of(gelu), of(silu), of(sigmoid), of(tanh), \
   of(softplus), of(clip), of(affine), of(power)}
#define ALL_ZIPS(of) {of(add), of(sub), of(mul), of(div), of(max), of(min)}
#define MAP_OF(name) map_##name
#define SLOPE_OF(name) slope_##name
#define ZIP_OF(name) zip_##name
#define UNZIP0_OF(name) unzip0_##name
#define UNZIP1_OF(name) unzip1_##name

const ev_element_kernels TABLE = {
    .map = ALL_MAPS(MAP_OF), .slope = ALL_MAPS(SLOPE_OF), .zip = ALL_ZIPS(ZIP_OF), .unzip = {ALL_ZIPS(UNZIP0_OF), ALL_ZIPS(UNZIP1_OF)},
    .softmax = softmax, .log_softmax = log_softmax, .logsumexp = logsumexp, .max = max_of,
    .softmax_back = softmax_back, .log_softmax_back = log_softmax_back, .logsumexp_back = logsumexp_back, .max_back = max_back,
    .normalise = normalise, .normalise_back = normalise_back, .layer_norm = layer_norm, .layer_norm_back = layer_norm_back,
    .sparse_rows = sparse_rows, .gru_cell = gru_cell, .gru_cell_back = gru_cell_back, .dropout = dropout,
};
