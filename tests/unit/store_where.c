/* store_where.c - conditions against an evaluator with three truth values that walks the tree they were written from. */
#include <math.h>
#include <pthread.h>

#include "store/ids.h"
#include "store/store.h"
#include "support.h"

#define ROWS 400
#define TOKENS 40
#define COLUMNS 5

/* A world in view: two columns of numbers, a token, a token list, and one whose name wants quotes. */
static struct {
  float year[ROWS], price[ROWS];
  uint32_t maker[ROWS], odd[ROWS], genre[ROWS * 4];
  uint64_t genre_ptr[ROWS + 1], token_ptr[TOKENS + 1];
  char token_bytes[TOKENS * 16];
  ev_column columns[COLUMNS];
} world;

static void make_world(void) {
  ev_rng r;
  ev_rng_seed(&r, 5, 1);
  char *at = world.token_bytes;
  for (unsigned t = 0; t < TOKENS; t++) { /* "", "a", "\"", "ü1", …: of several lengths, some with what wants a backslash */
    static const char *const special[] = {"", "a", "\"", "\\n", "\n", "it's", "true", "false", "1990"};
    world.token_ptr[t] = (uint64_t)(at - world.token_bytes);
    at += t < 9 ? sprintf(at, "%s", special[t]) : sprintf(at, t % 2 == 0 ? "ü%u" : "token %u", t);
  }
  world.token_ptr[TOKENS] = (uint64_t)(at - world.token_bytes);
  for (size_t i = 0; i < ROWS; i++) {
    world.year[i] = ev_rng_below(&r, 4) == 0 ? NAN : (float)(1985 + ev_rng_below(&r, 10));
    world.price[i] = ev_rng_below(&r, 4) == 0 ? NAN : (float)(0.1 * ((double)ev_rng_below(&r, 9) - 4));
    world.maker[i] = ev_rng_below(&r, 4) == 0 ? EV_NONE : ev_rng_below(&r, TOKENS);
    world.odd[i] = ev_rng_below(&r, 4) == 0 ? EV_NONE : ev_rng_below(&r, 9);
    world.genre_ptr[i + 1] = world.genre_ptr[i] + ev_rng_below(&r, 4);
    for (uint64_t k = world.genre_ptr[i]; k < world.genre_ptr[i + 1]; k++) world.genre[k] = ev_rng_below(&r, TOKENS);
  }
  ev_column text = {.n_rows = ROWS, .n_tokens = TOKENS, .token_ptr = world.token_ptr, .token_bytes = world.token_bytes};
  world.columns[0] = (ev_column){.name = "year", .type = EV_FLOAT, .n_rows = ROWS, .values = world.year};
  world.columns[1] = (ev_column){.name = "the.price_2", .type = EV_FLOAT, .n_rows = ROWS / 2, .values = world.price}; /* shorter: no value behind its end */
  world.columns[2] = world.columns[3] = world.columns[4] = text;
  world.columns[2].name = "maker";
  world.columns[2].codes = world.maker;
  world.columns[3].name = "odd \"name\"";
  world.columns[3].codes = world.odd;
  world.columns[4].name = "genre";
  world.columns[4].type = EV_TOKEN_LIST;
  world.columns[4].codes = world.genre;
  world.columns[4].ptr = world.genre_ptr;
}

static const ev_column *column_at(void *ctx, size_t i) { return i < *(size_t *)ctx ? &world.columns[i] : NULL; }

static size_t all_columns = COLUMNS;

static ev_where *compiled(const char *text) {
  ev_where *w;
  if (ev_where_compile(&w, text, column_at, &all_columns) != EV_OK) fail_msg("%s\n%s", text, ev_error());
  return w;
}

/* ---- The other way: trees, judged by Kleene's tables -----------------------------------------------------*/
typedef enum truth { NO, UNKNOWN, YES } truth; /* and is the least, or the greatest, not the mirror */

typedef struct tree {
  char kind; /* 'n'ot, 'a'nd, 'o'r, or a comparison */
  struct tree *a, *b;
  unsigned column, sign, n; /* sign: == ~= < <= > >= in nil, ~=nil */
  double numbers[24];
  char tokens[24][16];
} tree;

static truth judge(const tree *t, size_t row) {
  if (t->kind == 'n') return YES - judge(t->a, row);
  if (t->kind == 'a' || t->kind == 'o') {
    truth a = judge(t->a, row), b = judge(t->b, row);
    return t->kind == 'a' ? (a < b ? a : b) : (a > b ? a : b);
  }
  bool any = false, missing = true;
  if (t->column < 2) {
    float v = row >= ROWS || (t->column == 1 && row >= ROWS / 2) ? NAN : t->column == 0 ? world.year[row] : world.price[row], x = (float)t->numbers[0];
    missing = isnan(v);
    for (unsigned i = 0; i < t->n; i++) any = any || v == (float)t->numbers[i];
    if (!missing && t->sign >= 2 && t->sign < 6) return (t->sign == 2 ? v < x : t->sign == 3 ? v <= x : t->sign == 4 ? v > x : v >= x) ? YES : NO;
  } else if (row < ROWS) {
    uint64_t begin = t->column == 4 ? world.genre_ptr[row] : 0, end = t->column == 4 ? world.genre_ptr[row + 1] : 1;
    for (uint64_t k = begin; k < end; k++) {
      uint32_t code = t->column == 4 ? world.genre[k] : t->column == 2 ? world.maker[row] : world.odd[row];
      if (code == EV_NONE) continue;
      missing = false;
      size_t len = world.token_ptr[code + 1] - world.token_ptr[code];
      for (unsigned i = 0; i < t->n; i++) any = any || (strlen(t->tokens[i]) == len && memcmp(t->tokens[i], world.token_bytes + world.token_ptr[code], len) == 0);
    }
  }
  if (t->sign >= 7) return missing == (t->sign == 7) ? YES : NO;
  return missing ? UNKNOWN : any == (t->sign != 1) ? YES : NO;
}

static tree *grow(ev_rng *r, int depth) {
  tree *t = calloc(1, sizeof *t);
  unsigned which = ev_rng_below(r, 8);
  if (depth > 0 && which < 6) {
    t->kind = "naoaon"[which];
    t->a = grow(r, depth - 1);
    t->b = t->kind == 'n' ? NULL : grow(r, depth - 1);
    return t;
  }
  t->kind = 'c';
  t->column = ev_rng_below(r, COLUMNS);
  t->sign = ev_rng_below(r, 9);
  if (t->column >= 2 && t->sign >= 2 && t->sign < 6) t->sign = 6;
  t->n = t->sign < 6 ? 1 : t->sign == 6 ? ev_rng_below(r, ev_rng_below(r, 2) == 0 ? 4 : 24) : 0;
  for (unsigned i = 0; i < t->n; i++) {
    t->numbers[i] = t->column == 0 ? 1984 + (double)ev_rng_below(r, 12) : 0.1 * ((double)ev_rng_below(r, 11) - 5);
    unsigned code = ev_rng_below(r, t->column == 3 ? 9 : TOKENS);
    snprintf(t->tokens[i], 16, "%.*s", (int)(world.token_ptr[code + 1] - world.token_ptr[code]), world.token_bytes + world.token_ptr[code]);
    if (ev_rng_below(r, 8) == 0) strcpy(t->tokens[i], "no such token");
  }
  return t;
}

static void wither(tree *t) {
  if (t == NULL) return;
  wither(t->a);
  wither(t->b);
  free(t);
}

static void write_quoted(ev_buf *b, const char *s, size_t len, char quote) {
  ev_buf_append(b, &quote, 1);
  for (size_t i = 0; i < len; i++) {
    if (s[i] == '\n') ev_buf_printf(b, "\\n");
    else if (s[i] == quote || s[i] == '\\') ev_buf_printf(b, "\\%c", s[i]);
    else ev_buf_append(b, s + i, 1);
  }
  ev_buf_append(b, &quote, 1);
}

static void write_value(ev_buf *b, const tree *t, unsigned i, ev_rng *r) {
  const char *word = t->tokens[i];
  if (t->column < 2) ev_buf_printf(b, ev_rng_below(r, 2) == 0 ? "%.1f" : "%.7e", t->numbers[i]);
  else if ((strcmp(word, "true") == 0 || strcmp(word, "false") == 0) && ev_rng_below(r, 2) == 0) ev_buf_printf(b, "%s", word);
  else write_quoted(b, word, strlen(word), ev_rng_below(r, 2) == 0 ? '"' : '\'');
}

/* Parentheses only where they are wanted: and binds before or. */
static void write_tree(ev_buf *b, const tree *t, ev_rng *r) {
  static const char *const signs[] = {"==", "~=", "<", "<=", ">", ">=", "in", "==nil", "~= nil"};
  if (t->kind == 'a' || t->kind == 'o') {
    const tree *sides[2] = {t->a, t->b};
    for (int i = 0; i < 2; i++) {
      bool wrap = (t->kind == 'a' && sides[i]->kind == 'o') || ev_rng_below(r, 4) == 0;
      ev_buf_printf(b, wrap ? "(" : " ");
      write_tree(b, sides[i], r);
      ev_buf_printf(b, "%s%s", wrap ? ")" : "\n", i > 0 ? "" : t->kind == 'a' ? " and " : "or ");
    }
    return;
  }
  if (t->kind == 'n') {
    bool wrap = t->a->kind == 'a' || t->a->kind == 'o' || ev_rng_below(r, 2) == 0, inside = t->a->kind == 'c' && t->a->sign == 6 && !wrap && ev_rng_below(r, 2) == 0;
    if (inside) { /* not x in {} and x not in {} are the same */
      ev_buf b2 = {0};
      write_tree(&b2, t->a, r);
      char *in = strstr(b2.data, " in {");
      ev_buf_printf(b, "%.*s not%s", (int)(in - b2.data), b2.data, in);
      ev_buf_free(&b2);
      return;
    }
    ev_buf_printf(b, wrap ? "not(" : "not ");
    write_tree(b, t->a, r);
    ev_buf_printf(b, wrap ? ")" : " ");
    return;
  }
  const char *name = world.columns[t->column].name;
  if (t->column == 3 || ev_rng_below(r, 5) == 0) write_quoted(b, name, strlen(name), '"');
  else ev_buf_printf(b, "%s", name);
  ev_buf_printf(b, " %s ", t->sign == 1 && ev_rng_below(r, 2) == 0 ? "!=" : signs[t->sign]);
  if (t->sign == 6) ev_buf_printf(b, "{");
  for (unsigned i = 0; i < t->n; i++) {
    if (i > 0) ev_buf_printf(b, ", ");
    write_value(b, t, i, r);
  }
  if (t->sign == 6) ev_buf_printf(b, "}");
}

/* The vocabulary as a live table has it; all columns of texts share one here. */
static void find_tokens_by(const ev_ids *ids) {
  for (size_t i = 2; i < COLUMNS; i++) world.columns[i].ids = ids;
}

static void random_conditions_hold_where_three_valued_logic_says(void **s) {
  (void)s;
  ev_ids ids;
  ev_epochs *epochs = ev_epochs_new();
  assert_int_equal(ev_ids_open(&ids, 1000, 100000), EV_OK);
  for (uint32_t t = 0, code; t < TOKENS; t++) {
    assert_int_equal(ev_ids_add(&ids, world.token_bytes + world.token_ptr[t], world.token_ptr[t + 1] - world.token_ptr[t], epochs, &code), EV_OK);
    assert_int_equal(code, t);
  }
  uint32_t younger;
  assert_int_equal(ev_ids_add(&ids, "no such token", 13, epochs, &younger), EV_OK); /* one that came after the columns were looked at */
  size_t n[3] = {0};
  for (uint64_t seed = 1; seed <= 3000; seed++) {
    ev_rng r;
    ev_buf b = {0};
    ev_rng_seed(&r, seed, 2);
    tree *t = grow(&r, (int)ev_rng_below(&r, 7));
    write_tree(&b, t, &r);
    find_tokens_by(seed % 2 == 0 ? &ids : NULL);
    ev_where *w = compiled(b.data);
    for (size_t row = 0; row < ROWS + 2; row++) {
      truth wanted = judge(t, row);
      n[wanted]++;
      if (ev_where_holds(w, row) != (wanted == YES)) fail_msg("seed %llu, row %zu: %d\n%s", (unsigned long long)seed, row, wanted, b.data);
    }
    for (size_t row = 0; row < ROWS + 64; row += 64) { /* and so 64 at a time, of those that are asked for */
      uint64_t of = ev_rng_below(&r, 2) == 0 ? UINT64_MAX : ev_rng_u64(&r), word = 0;
      for (unsigned i = 0; i < 64; i++) word |= (of >> i & 1 && ev_where_holds(w, row + i)) ? UINT64_C(1) << i : 0;
      if (ev_where_word(w, row, of) != word) fail_msg("seed %llu, rows from %zu\n%s", (unsigned long long)seed, row, b.data);
    }
    ev_where_free(w);
    ev_buf_free(&b);
    wither(t);
  }
  assert_true(n[NO] > 100000 && n[UNKNOWN] > 100000 && n[YES] > 100000);
  ev_where_free(NULL);
  find_tokens_by(NULL);
  ev_ids_close(&ids);
  ev_epochs_free(epochs);
}

static size_t count(const char *text) {
  ev_where *w = compiled(text);
  size_t n = 0;
  for (size_t i = 0; i < ROWS; i++) n += ev_where_holds(w, i);
  ev_where_free(w);
  return n;
}

static void a_missing_value_passes_no_comparison_and_no_negation(void **s) {
  (void)s;
  size_t known = 0;
  for (size_t i = 0; i < ROWS; i++) known += !isnan(world.year[i]);
  assert_in_range(known, 200, ROWS - 1);
  assert_int_equal(count("year == 1990 or year ~= 1990"), known);
  assert_int_equal(count("year == 1990 or not year == 1990"), known);
  assert_int_equal(count("not (year < 1990 and year >= 1990)"), known);
  assert_int_equal(count("not year in {}"), known);
  assert_int_equal(count("year < 1e300"), known); /* larger than any value */
  assert_int_equal(count("year ~= nil"), known);
  assert_int_equal(count("year == nil"), ROWS - known);
  assert_int_equal(count("not not year == nil or not (year == nil)"), ROWS);
  assert_int_equal(count("year in {}"), 0);
}

static void numbers_are_compared_as_they_are_stored(void **s) {
  (void)s;
  size_t n = 0;
  for (size_t i = 0; i < ROWS / 2; i++) n += world.price[i] == 0.3f;
  assert_true(n > 0 && 0.3f != 0.3);
  assert_int_equal(count("the.price_2 == 0.3"), n);
  assert_int_equal(count("the.price_2 in { 3e-1, 0.30000001, -7 }"), n);
  assert_int_equal(count("the.price_2 == -0.0"), count("the.price_2 in {0, -0}"));
  assert_true(count("the.price_2 == 0") > 0);
}

static void a_large_vocabulary_and_a_large_set_agree(void **s) {
  (void)s;
  ev_buf text = {0}, bytes = {0};
  enum { MANY = 5000 };
  static uint64_t ptr[MANY + 1];
  static uint32_t codes[MANY];
  for (uint32_t i = 0; i < MANY; i++) {
    ev_buf_printf(&bytes, "%x", i * 2654435761u);
    ptr[i + 1] = bytes.len;
    codes[i] = i;
  }
  ev_column c = {.name = "maker", .type = EV_TOKEN, .n_rows = MANY, .codes = codes, .n_tokens = MANY, .token_ptr = ptr, .token_bytes = bytes.data}, old = world.columns[2];
  ev_buf_printf(&text, "maker in {\"none such\"");
  for (uint32_t i = 0; i < MANY; i += 7) ev_buf_printf(&text, ",\"%x\"", i * 2654435761u);
  ev_buf_printf(&text, "} or maker == \"%x\"", 1 * 2654435761u);
  world.columns[2] = c;
  ev_where *w = compiled(text.data);
  memset(&world.columns[2], 0xFF, sizeof c); /* the ev_column itself is not looked at again */
  for (uint32_t i = 0; i < MANY; i++) assert_int_equal(ev_where_holds(w, i), i % 7 == 0 || i == 1);
  world.columns[2] = old;
  ev_where_free(w);
  ev_buf_free(&text);
  ev_buf_free(&bytes);
}

static void tokens_that_came_later_equal_nothing_compiled_before(void **s) {
  (void)s;
  uint32_t saved = world.maker[3];
  ev_where *w = compiled("maker == \"a\""), *v = compiled("not maker == \"a\""), *many = compiled("maker in {'', 'a', '\"', '\\\\n', '\\n', \"it's\", 'true', 'false', '1990'}");
  world.maker[3] = TOKENS + 100000; /* a code beyond the vocabulary that was there */
  assert_false(ev_where_holds(w, 3));
  assert_true(ev_where_holds(v, 3));
  assert_false(ev_where_holds(many, 3));
  world.maker[3] = 1;
  assert_true(ev_where_holds(w, 3) && ev_where_holds(many, 3) && !ev_where_holds(v, 3));
  world.maker[3] = saved;
  ev_where_free(w);
  ev_where_free(v);
  ev_where_free(many);
}

static void refused(const char *text, const char *wanted) {
  ev_where *w = (ev_where *)&world;
  if (ev_where_compile(&w, text, column_at, &all_columns) != EV_EINVAL) fail_msg("taken: %s", text);
  assert_null(w);
  if (strcmp(ev_error(), wanted) != 0) fail_msg("%s\nis said: %s\nwanted:  %s", text, ev_error(), wanted);
}

static void errors_name_the_place_and_what_was_meant(void **s) {
  (void)s;
  refused("", "where: column 1: a column is wanted, and the condition ends here");
  refused("yaer >= 1990", "where: column 1: no column 'yaer'; did you mean 'year'?");
  refused("year >= 1990 and Genre == \"x\"", "where: column 18: no column 'Genre'; did you mean 'genre'?");
  refused("nothing.alike == 1", "where: column 1: no column 'nothing.alike'");
  refused("\"odd name\" == 'x'", "where: column 1: no column 'odd name'; did you mean 'odd \"name\"'?");
  refused("maker == 'ü' and üü == 2", "where: column 18: no column 'üü'");
  refused("year == \"1990\"", "where: column 9: 'year' holds numbers, and this is a text");
  refused("year in {1990, 'x'}", "where: column 16: 'year' holds numbers, and this is a text");
  refused("year == true", "where: column 9: 'year' holds numbers, and this is a text");
  refused("maker ~= 1990", "where: column 10: 'maker' holds text, and this is a number");
  refused("genre >= \"a\"", "where: column 7: 'genre' holds text, which has no order: ==, ~= and in compare it");
  refused("year >= 1990 year", "where: column 14: 'and', 'or' or the end is wanted, not 'year'");
  refused("year >= 1990 AND year < 3", "where: column 14: 'and', 'or' or the end is wanted, not 'AND'");
  refused("(year >= 1990", "where: column 14: 'and', 'or' or ')' is wanted, and the condition ends here");
  refused("year >= 1990)", "where: column 13: 'and', 'or' or the end is wanted, not ')'");
  refused("year = 1990", "where: column 6: '=' is written '=='");
  refused("year <> 1990", "where: column 6: '<>' is written '~='");
  refused("year > 1 && year < 2", "where: column 10: '&&' is written 'and'");
  refused("!(year > 1)", "where: column 1: '!' is written 'not'");
  refused("year in [1]", "where: column 9: '[' is written '{'");
  refused("year in (1)", "where: column 9: '{' is wanted, not '('");
  refused("year in {1,}", "where: column 12: a number or a text in quotes is wanted, not '}'");
  refused("year in {1 2}", "where: column 12: ',' or '}' is wanted, not '2'");
  refused("year not == 3", "where: column 10: 'in' is wanted, not '=='");
  refused("year", "where: column 5: a comparison (==, ~=, <, <=, >, >=, in) is wanted, and the condition ends here");
  refused("1990 <= year", "where: column 1: a column is wanted, not '1990'");
  refused("year < nil", "where: column 8: a number or a text in quotes is wanted, not 'nil'");
  refused("year < maker", "where: column 8: a number or a text in quotes is wanted, not 'maker'");
  refused("and == 1", "where: column 1: a column is wanted, not 'and'");
  refused("year == 1990s", "where: column 9: '1990s' is not a number");
  refused("year == 1.2.3", "where: column 9: '1.2.3' is not a number");
  refused("year == 0x10", "where: column 9: '0x10' is not a number");
  refused("maker == \"x", "where: column 10: the text that begins here has no end");
  refused("maker == 'a\\q'", "where: column 12: in a text, a backslash stands before \\, \", ', n or t");
  refused("year ; drop", "where: column 6: ';' begins nothing that a condition knows");
  refused("maker == \xC3", "where: column 10: not UTF-8");
}

static void conditions_are_bounded(void **s) {
  (void)s;
  ev_buf b = {0};
  for (int depth = 64; depth <= 65; depth++) {
    ev_buf_clear(&b);
    for (int i = 0; i < depth; i++) ev_buf_printf(&b, "not(");
    ev_buf_printf(&b, "year<1990");
    for (int i = 0; i < depth; i++) ev_buf_printf(&b, ")");
    if (depth == 64) assert_int_equal(count(b.data), count("year < 1990"));
    else refused(b.data, "where: column 260: more than 64 parentheses within each other");
  }
  ev_buf_clear(&b);
  while (b.len < 30000) ev_buf_printf(&b, "not not ");
  ev_buf_printf(&b, "year<1990");
  while (b.len < 65000) ev_buf_printf(&b, " or year<1990");
  assert_int_equal(count(b.data), count("year < 1990"));
  ev_where *many = compiled(b.data), *single = compiled("year < 1990"); /* more tests than go down together */
  for (size_t row = 0; row < ROWS; row += 64) assert_true(ev_where_word(many, row, UINT64_MAX) == ev_where_word(single, row, UINT64_MAX));
  ev_where_free(many);
  ev_where_free(single);
  while (b.len <= 65536) ev_buf_printf(&b, " ");
  refused(b.data, "where: a condition of 65537 bytes; at most 65536 are read");
  ev_buf_clear(&b);
  ev_buf_printf(&b, "year in {0");
  for (int i = 1; i < 16384; i++) ev_buf_printf(&b, ",%d", i % 10);
  assert_true(b.len < 65536);
  ev_buf_printf(&b, "}");
  assert_int_equal(count(b.data), 0);
  b.data[b.len - 1] = ',';
  ev_buf_printf(&b, "1}");
  refused(b.data, "where: column 32778: more than 16384 values");
  ev_buf_free(&b);
}

static void without_columns_the_grammar_alone_is_checked(void **s) {
  (void)s;
  ev_where *w;
  assert_int_equal(ev_where_compile(&w, "a == 1 and a == 'x' and \"b c\" in {1, 2} or d == nil", NULL, NULL), EV_OK);
  ev_where_free(w);
  assert_int_equal(ev_where_compile(&w, "a in {1, 'x'}", NULL, NULL), EV_EINVAL);
  assert_string_equal(ev_error(), "where: column 10: a set holds numbers or texts, not both");
  assert_int_equal(ev_where_compile(&w, "a < 'x'", NULL, NULL), EV_EINVAL);
  assert_string_equal(ev_error(), "where: column 5: text has no order: ==, ~= and in compare it");
}

static void *hold(void *w) {
  size_t n = 0;
  for (int round = 0; round < 200; round++)
    for (size_t i = 0; i < ROWS; i++) n += ev_where_holds(w, i);
  return (void *)n;
}

static void threads_share_a_condition(void **s) {
  (void)s;
  ev_where *w = compiled("not (genre in {'a', 'true'} or year >= 1990) or maker ~= 'token 11' and the.price_2 < 0.2");
  pthread_t threads[4];
  void *n[4];
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, hold, w), 0);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], &n[i]);
  for (int i = 0; i < 4; i++) assert_ptr_equal(n[i], hold(w));
  ev_where_free(w);
}

static void compiling_survives_faults(void **s) {
  (void)s;
  ev_where *w;
  static const char text[] = "maker in {'', 'a', '\"', '\\\\n', '\\n', \"it's\", 'true', 'false', '1990'} and (year in {1990, 1, 2} or not genre == 'ü12')";
  ASSERT_SURVIVES_FAULTS(ev_where_compile(&w, text, column_at, &all_columns), );
  ev_where_free(w);
}

int main(void) {
  make_world();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_conditions_hold_where_three_valued_logic_says), cmocka_unit_test(a_missing_value_passes_no_comparison_and_no_negation),
      cmocka_unit_test(numbers_are_compared_as_they_are_stored), cmocka_unit_test(a_large_vocabulary_and_a_large_set_agree),
      cmocka_unit_test(tokens_that_came_later_equal_nothing_compiled_before), cmocka_unit_test(errors_name_the_place_and_what_was_meant),
      cmocka_unit_test(conditions_are_bounded), cmocka_unit_test(without_columns_the_grammar_alone_is_checked), cmocka_unit_test(threads_share_a_condition),
      cmocka_unit_test(compiling_survives_faults),
  };
  return RUN(tests);
}
