/* store_item_batch.c - items under construction come out as they were put in, whatever moved meanwhile. */
#include "store/store.h"
#include "support.h"

/* Item i: a vector unless i % 3 == 2, i % 4 fields: a number, a text, a list of i % 5 texts. */
static ev_status build(ev_item_batch *b, size_t n, size_t d) {
  for (size_t i = 0; i < n; i++) {
    char text[32];
    float *v;
    int len = snprintf(text, sizeof text, "item %zu", i);
    EV_TRY(ev_item_batch_add(b, text, (size_t)len));
    if (i % 7 == 0) { /* begun and dropped */
      EV_TRY(ev_item_batch_vector(b, d + 1, &v));
      EV_TRY(ev_item_batch_field(b, "gone", 4, EV_TOKEN, 0));
      EV_TRY(ev_item_batch_token(b, "gone", 4));
      ev_item_batch_drop(b);
      EV_TRY(ev_item_batch_add(b, text, (size_t)len));
    }
    if (i % 3 != 2) {
      EV_TRY(ev_item_batch_vector(b, d, &v));
      for (size_t k = 0; k < d; k++) v[k] = (float)(i * d + k);
    }
    if (i % 4 > 0) EV_TRY(ev_item_batch_field(b, "year_of", 4, EV_FLOAT, (double)i + 0.5));
    if (i % 4 > 1) EV_TRY(ev_item_batch_field(b, "maker", 5, EV_TOKEN, 0));
    if (i % 4 > 1) EV_TRY(ev_item_batch_token(b, text, (size_t)len - 1));
    if (i % 4 > 2) EV_TRY(ev_item_batch_field(b, "genre", 5, EV_TOKEN_LIST, 0));
    for (size_t k = 0; i % 4 > 2 && k < i % 5; k++) EV_TRY(ev_item_batch_token(b, text, k));
  }
  return EV_OK;
}

static void assert_built(const ev_item *items, size_t n, size_t d) {
  for (size_t i = 0; i < n; i++) {
    char text[32];
    snprintf(text, sizeof text, "item %zu", i);
    const ev_item *x = &items[i];
    const ev_field *f = x->fields;
    assert_string_equal(x->id, text);
    assert_int_equal(x->vector == NULL, i % 3 == 2);
    for (size_t k = 0; x->vector != NULL && k < d; k++) assert_true(x->vector[k] == (float)(i * d + k));
    assert_int_equal(x->n_fields, i % 4);
    if (i % 4 > 0) assert_true(strcmp(f[0].name, "year") == 0 && f[0].type == EV_FLOAT && f[0].number == (double)i + 0.5 && f[0].n_tokens == 0);
    if (i % 4 > 1) assert_true(strcmp(f[1].name, "maker") == 0 && f[1].type == EV_TOKEN && f[1].n_tokens == 1);
    if (i % 4 > 1) assert_memory_equal(f[1].tokens[0], text, strlen(text) - 1);
    if (i % 4 > 1) assert_int_equal(strlen(f[1].tokens[0]), strlen(text) - 1);
    if (i % 4 > 2) assert_true(strcmp(f[2].name, "genre") == 0 && f[2].type == EV_TOKEN_LIST && f[2].n_tokens == i % 5);
    for (size_t k = 0; i % 4 > 2 && k < i % 5; k++) assert_true(strlen(f[2].tokens[k]) == k && strncmp(f[2].tokens[k], text, k) == 0);
  }
}

static void a_batch_gives_back_what_it_was_given(void **s) {
  (void)s;
  ev_item_batch *b = ev_item_batch_new();
  const ev_item *items;
  for (size_t n = 0; n < 500; n = n * 2 + 1) { /* again and again in the same memory */
    ev_item_batch_clear(b);
    assert_int_equal(build(b, n, 7), EV_OK);
    assert_int_equal(ev_item_batch_n(b), n);
    assert_int_equal(ev_item_batch_dims(b), n > 0 ? 7 : 0);
    assert_int_equal(ev_item_batch_get(b, 7, &items), EV_OK);
    assert_built(items, n, 7);
  }
  ev_item_batch_free(b);
  ev_item_batch_free(NULL);
}

static void vectors_of_another_length_are_refused_by_name(void **s) {
  (void)s;
  ev_item_batch *b = ev_item_batch_new();
  const ev_item *items;
  assert_int_equal(build(b, 5, 3), EV_OK);
  assert_int_equal(ev_item_batch_get(b, 4, &items), EV_EINVAL);
  assert_string_equal(ev_error(), "item 'item 0': a vector of 3 numbers; those of this table have 4");
  assert_int_equal(ev_item_batch_get(b, 0, &items), EV_EINVAL);
  assert_string_equal(ev_error(), "item 'item 0' has a vector; this table was made without");
  assert_int_equal(ev_item_batch_get(b, 3, &items), EV_OK);
  assert_int_equal(ev_item_batch_add(b, "a\0b", 3), EV_EINVAL);
  assert_int_equal(ev_item_batch_field(b, "a\0b", 3, EV_TOKEN, 0), EV_EINVAL);
  assert_int_equal(ev_item_batch_field(b, "a", 1, EV_TOKEN, 0), EV_OK);
  assert_int_equal(ev_item_batch_token(b, "\0", 1), EV_EINVAL);
  ev_item_batch_free(b);
}

static ev_status whole(ev_item_batch **b) {
  const ev_item *items;
  *b = ev_item_batch_new();
  if (*b == NULL) return EV_ENOMEM;
  ev_status status = build(*b, 40, 9);
  if (status == EV_OK) status = ev_item_batch_get(*b, 9, &items);
  if (status == EV_OK) return EV_OK;
  ev_item_batch_free(*b);
  return status;
}

static void batches_survive_faults(void **s) {
  (void)s;
  ev_item_batch *b;
  ASSERT_SURVIVES_FAULTS(whole(&b), ev_item_batch_free(b));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_batch_gives_back_what_it_was_given), cmocka_unit_test(vectors_of_another_length_are_refused_by_name),
      cmocka_unit_test(batches_survive_faults),
  };
  return RUN(tests);
}
