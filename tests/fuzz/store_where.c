/* store_where.c (fuzz) - damaged conditions: refused by column, or judged the same every time and the other way round by `not`. */
#include <math.h>
#include <string.h>

#include "driver.h"

static const float year[4] = {1990, NAN, -3, 1e30f};
static const uint32_t maker[4] = {0, EV_NONE, 1, 2}, genre[5] = {0, 1, 2, 2, 0};
static const uint64_t genre_ptr[5] = {0, 2, 2, 3, 5}, token_ptr[4] = {0, 1, 6, 6};
static ev_column columns[3];

static const ev_column *column_at(void *ctx, size_t i) {
  (void)ctx;
  return i < 3 ? &columns[i] : NULL;
}

static const char *const words[] = {"and", "or", "not", "in", "nil", "true", "==", "~=", "<=", ">=", "<", "{", "}", "(", ")", ",", "year", "maker", "genre",
                                    "\"a\"", "'W\xC3\xA4r'", "\\", "1e9", "-1.5", "\"", NULL};

static void make_seeds(void) {
  static const char *const texts[] = {
      "genre in {\"a\", \"b c\"} and year >= 1990 and not (maker == 'x' or year < 2.5)", "year == nil", "not maker in {}", "maker not in {'a', 'b', 'c'}",
      "((year ~= -1e-3))", "year in {1990, 1991, -3}", "\"year\" != .5 or \"maker\" ~= true", "not not year <= 1e400 and genre ~= nil or genre == \"\\\\\\n\\\"\"",
      "maker in {'1','2','3','4','5','6','7','8','9','a','W\xC3\xA4r'} or maker == ''", "year < 1 and (year > 2 or (year == 3 and (not (year ~= 4 or year >= 5))))"};
  ev_column text = {.n_rows = 4, .n_tokens = 3, .token_ptr = token_ptr, .token_bytes = "aW\xC3\xA4rs"};
  columns[0] = (ev_column){.name = "year", .type = EV_FLOAT, .n_rows = 4, .values = year};
  columns[1] = columns[2] = text;
  columns[1].name = "maker";
  columns[1].codes = maker;
  columns[2].name = "genre";
  columns[2].type = EV_TOKEN_LIST;
  columns[2].codes = genre;
  columns[2].ptr = genre_ptr;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) fuzz_seed(texts[i], strlen(texts[i]));
}

static void one(const uint8_t *data, size_t len) {
  ev_buf text = {0}, around = {0};
  ev_where *w, *grammar, *opposite;
  FUZZ_REQUIRE(ev_buf_append(&text, data, len) == EV_OK); /* a NUL ends it */
  ev_status status = ev_where_compile(&w, text.data, column_at, NULL);
  ev_status loose = ev_where_compile(&grammar, text.data, NULL, NULL);
  FUZZ_REQUIRE(status == EV_OK || (status == EV_EINVAL && w == NULL));
  FUZZ_REQUIRE(loose == EV_OK || (loose == EV_EINVAL && grammar == NULL && strncmp(ev_error(), "where: ", 7) == 0));
  FUZZ_REQUIRE(loose == EV_OK || status != EV_OK);
  FUZZ_REQUIRE(status != EV_OK || ev_buf_printf(&around, "not(%s)", text.data) == EV_OK);
  if (status == EV_OK && ev_where_compile(&opposite, around.data, column_at, NULL) == EV_OK) { /* it may have become too long or too deep */
    for (size_t row = 0; row < 6; row++) FUZZ_REQUIRE(!ev_where_holds(w, row) || !ev_where_holds(opposite, row));
    ev_where_free(opposite);
  }
  if (status == EV_OK) {
    uint64_t word = ev_where_word(w, 0, 0x3B);
    for (size_t row = 0; row < 64; row++) FUZZ_REQUIRE((word >> row & 1) == (row < 6 && row != 2 && ev_where_holds(w, row)));
  }
  for (size_t row = 0; loose == EV_OK && row < 2; row++) (void)ev_where_holds(grammar, row);
  ev_where_free(w);
  ev_where_free(grammar);
  ev_buf_free(&text);
  ev_buf_free(&around);
}

const fuzz_target fuzz = {make_seeds, one, NULL, words};
