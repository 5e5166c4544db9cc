/* where_parse.c - the text of a condition → what where.c walks.
 *
 *   condition   either {"or" either}         either      one {"and" one}
 *   one         {"not"} ("(" condition ")" | comparison)
 *   comparison  column ("==" | "~=" | "!=" | "<" | "<=" | ">" | ">=") (value | "nil")
 *             | column ["not"] "in" "{" [value {"," value}] "}"
 *
 * By recursive descent; depth, text and sets are bounded, so a condition may come from anywhere. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ids.h"
#include "where.h"

#define TEXT_MAX 65536   /* bytes of a condition */
#define DEPTH_MAX 64     /* parentheses within parentheses */
#define VALUES_MAX 16384 /* all sets together */
#define FEW_CODES 8      /* compared one by one; more become a bitmap */

/* ---- Words ---------------------------------------------------------------------------------------------*/
typedef enum kind { END, WORD, TEXT, NUMBER, SIGN } kind;

typedef struct value {
  bool text;
  float number;
  uint32_t index, column; /* place among all values; whose it is */
  uint32_t at, len;       /* of the text, in the parser's bytes */
} value;

typedef struct node { /* a comparison, or children joined by and, or */
  enum { AND, OR, TEST } kind;
  bool negated;
  uint32_t child, next; /* the last child, and the one before this; EV_NONE: none. Emitted from the last on */
  uint32_t test;
} node;

typedef struct parser {
  const char *text, *at;   /* at: behind the current word */
  kind kind;
  const char *word;        /* where it begins */
  size_t len;              /* its bytes */
  float number;
  uint32_t string, string_len; /* of a TEXT, unescaped, in bytes */
  ev_where_column_fn *find;
  void *ctx;
  ev_where *w;
  ev_buf bytes, nodes, values, tests, columns; /* of char, node, value, where_test, ev_column */
} parser;

#define N(buf, type) ((uint32_t)((buf).len / sizeof(type)))
#define AT(buf, type, i) (&((type *)(void *)(buf).data)[i])

static ev_status fail(const parser *p, const char *at, const char *fmt, ...) EV_PRINTF(3, 4);
static ev_status fail(const parser *p, const char *at, const char *fmt, ...) {
  char what[256];
  size_t column = 1, bad;
  va_list args;
  va_start(args, fmt);
  vsnprintf(what, sizeof what, fmt, args);
  va_end(args);
  for (const char *c = p->text; c < at; c++) column += ((unsigned char)*c & 0xC0) != 0x80;
  size_t len = strlen(what);
  for (size_t i = 0; i < len; i++)
    if ((unsigned char)what[i] < 0x20) what[i] = '?';
  while ((bad = ev_utf8_invalid(what, len)) < len) what[bad] = '?'; /* a quotation may have been cut within a character */
  return ev_fail(EV_EINVAL, "where: column %zu: %s", column, what);
}

static bool word_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || ((unsigned char)c & 0x80) != 0; }
static bool digit(char c) { return c >= '0' && c <= '9'; }
static bool is(const parser *p, const char *word) { return p->kind != TEXT && p->kind != END && strlen(word) == p->len && memcmp(word, p->word, p->len) == 0; }

static ev_status next_text(parser *p) {
  char quote = *p->at++;
  p->string = (uint32_t)p->bytes.len;
  for (; *p->at != quote; p->at++) {
    static const char names[] = "\\\"'nt", meant[] = "\\\"'\n\t";
    char c = *p->at;
    if (c == '\0') return fail(p, p->word, "the text that begins here has no end");
    if (c == '\\') {
      const char *which = p->at[1] != '\0' ? strchr(names, p->at[1]) : NULL;
      if (which == NULL) return fail(p, p->at, "in a text, a backslash stands before \\, \", ', n or t");
      c = meant[which - names];
      p->at++;
    }
    EV_TRY(ev_buf_append(&p->bytes, &c, 1));
  }
  p->string_len = (uint32_t)p->bytes.len - p->string;
  p->at++;
  p->len = (size_t)(p->at - p->word);
  return EV_OK;
}

static ev_status next_number(parser *p) {
  double x;
  if (*p->at == '-' || *p->at == '+') p->at++;
  while (digit(*p->at) || *p->at == '.' || word_start(*p->at) || ((*p->at == '-' || *p->at == '+') && (p->at[-1] == 'e' || p->at[-1] == 'E'))) p->at++;
  p->len = (size_t)(p->at - p->word);
  if (!ev_parse_f64(p->word, p->len, &x)) return fail(p, p->word, "'%.*s' is not a number", (int)(p->len < 60 ? p->len : 60), p->word);
  p->number = x > FLT_MAX ? INFINITY : x < -FLT_MAX ? -INFINITY : (float)x;
  return EV_OK;
}

static ev_status next(parser *p) {
  static const char *const signs[] = {"==", "~=", "!=", "<=", ">=", "<", ">", "(", ")", "{", "}", ","};
  static const char *const others[][2] = {{"=", "=="}, {"&&", "and"}, {"&", "and"}, {"||", "or"}, {"|", "or"}, {"!", "not"}, {"~", "not"}, {"[", "{"}};
  while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r') p->at++;
  p->word = p->at;
  p->len = 0;
  p->kind = END;
  char c = *p->at;
  if (c == '\0') return EV_OK;
  if (word_start(c)) {
    p->kind = WORD;
    while (word_start(*p->at) || digit(*p->at) || *p->at == '.') p->at++;
    p->len = (size_t)(p->at - p->word);
    return EV_OK;
  }
  if (c == '"' || c == '\'') {
    p->kind = TEXT;
    return next_text(p);
  }
  if (digit(c) || ((c == '-' || c == '+' || c == '.') && (digit(p->at[1]) || (p->at[1] == '.' && digit(p->at[2]))))) {
    p->kind = NUMBER;
    return next_number(p);
  }
  if (strncmp(p->at, "<>", 2) == 0) return fail(p, p->at, "'<>' is written '~='");
  p->kind = SIGN;
  for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
    p->len = strlen(signs[i]);
    if (strncmp(p->at, signs[i], p->len) != 0) continue;
    p->at += p->len;
    return EV_OK;
  }
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (strncmp(p->at, others[i][0], strlen(others[i][0])) == 0) return fail(p, p->at, "'%s' is written '%s'", others[i][0], others[i][1]);
  return fail(p, p->at, "'%c' begins nothing that a condition knows", c);
}

static ev_status unexpected(const parser *p, const char *wanted) {
  if (p->kind == END) return fail(p, p->word, "%s is wanted, and the condition ends here", wanted);
  return fail(p, p->word, "%s is wanted, not '%.*s'", wanted, (int)(p->len < 60 ? p->len : 60), p->word);
}

/* ---- Grammar -------------------------------------------------------------------------------------------*/
/* The column that the current word names: its place in p->columns. */
static ev_status find_column(parser *p, uint32_t *out) {
  static const ev_column unknown = {.name = ""};
  const char *s = p->kind == TEXT ? p->bytes.data + p->string : p->word, *best = NULL;
  size_t len = p->kind == TEXT ? p->string_len : p->len, least = len / 2 + 1 < 4 ? len / 2 + 1 : 4; /* more edits make another word */
  const ev_column *c = &unknown, *near;
  if (p->find != NULL)
    for (size_t i = 0; (c = p->find(p->ctx, i)) != NULL && (strlen(c->name) != len || memcmp(c->name, s, len) != 0); i++) {}
  if (c == NULL) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)len, s);
    for (size_t i = 0; (near = p->find(p->ctx, i)) != NULL; i++) {
      size_t edits = ev_edit_distance(name, near->name);
      if (edits < least) least = edits, best = near->name;
    }
    if (best != NULL) return fail(p, p->word, "no column '%.48s'; did you mean '%s'?", name, best);
    return fail(p, p->word, "no column '%.48s'", name);
  }
  for (*out = 0; *out < N(p->columns, ev_column); ++*out)
    if (strcmp(AT(p->columns, ev_column, *out)->name, c->name) == 0) return EV_OK;
  return ev_buf_append(&p->columns, c, sizeof *c);
}

/* Adds the current word to the test's values; it must be of its column's type. */
static ev_status take_value(parser *p, uint32_t column, bool *text) {
  const ev_column *c = AT(p->columns, ev_column, column);
  value v = {.index = N(p->values, value), .column = column};
  if (p->kind == NUMBER) v.number = p->number + 0.0f; /* no negative zero: sets are sorted */
  else if (p->kind == TEXT || is(p, "true") || is(p, "false")) {
    v.text = true;
    v.at = p->kind == TEXT ? p->string : (uint32_t)p->bytes.len;
    v.len = p->kind == TEXT ? p->string_len : (uint32_t)p->len;
    if (p->kind != TEXT) EV_TRY(ev_buf_append(&p->bytes, p->word, p->len));
  } else {
    return unexpected(p, "a number or a text in quotes");
  }
  *text = v.text;
  if (p->find != NULL && v.text != (c->type != EV_FLOAT))
    return fail(p, p->word, "'%s' holds %s, and this is %s", c->name, v.text ? "numbers" : "text", v.text ? "a text" : "a number");
  if (v.index == VALUES_MAX) return fail(p, p->word, "more than %d values", VALUES_MAX);
  EV_TRY(ev_buf_append(&p->values, &v, sizeof v));
  return next(p);
}

static ev_status set(parser *p, uint32_t column) {
  bool text = false, first = false;
  EV_TRY(next(p));
  if (!is(p, "{")) return unexpected(p, "'{'");
  EV_TRY(next(p));
  for (bool more = !is(p, "}"), begun = false; more; begun = true) {
    const char *at = p->word;
    EV_TRY(take_value(p, column, &text));
    if (!begun) first = text;
    if (text != first) return fail(p, at, "a set holds numbers or texts, not both");
    more = is(p, ",");
    if (more) EV_TRY(next(p));
    else if (!is(p, "}")) return unexpected(p, "',' or '}'");
  }
  return next(p);
}

static ev_status comparison(parser *p, where_test *t) {
  static const struct { const char *sign; where_op op; } ops[] = {{"==", OP_EQ}, {"~=", OP_NE}, {"!=", OP_NE}, {"<", OP_LT}, {"<=", OP_LE}, {">", OP_GT}, {">=", OP_GE}};
  static const char *const reserved[] = {"and", "or", "not", "in", "true", "false", "nil"};
  bool named = p->kind == WORD || p->kind == TEXT, found = false, text;
  for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) named = named && !is(p, reserved[i]);
  if (!named) return unexpected(p, "a column");
  *t = (where_test){.first = N(p->values, value)};
  EV_TRY(find_column(p, &t->column));
  EV_TRY(next(p));
  const char *sign = p->word;
  bool negated = is(p, "not");
  if (negated) EV_TRY(next(p));
  if (is(p, "in")) {
    t->op = negated ? OP_NOT_IN : OP_IN;
    EV_TRY(set(p, t->column));
  } else {
    for (size_t i = 0; i < sizeof ops / sizeof *ops && !found && !negated; i++) {
      found = p->kind == SIGN && is(p, ops[i].sign);
      if (found) t->op = ops[i].op;
    }
    if (!found) return unexpected(p, negated ? "'in'" : "a comparison (==, ~=, <, <=, >, >=, in)");
    EV_TRY(next(p));
    const ev_column *c = AT(p->columns, ev_column, t->column);
    if (is(p, "nil") && t->op <= OP_NE) {
      t->op = t->op == OP_EQ ? OP_MISSING : OP_PRESENT;
      return next(p);
    }
    if (t->op > OP_NE && p->find != NULL && c->type != EV_FLOAT) return fail(p, sign, "'%s' holds text, which has no order: ==, ~= and in compare it", c->name);
    if (t->op > OP_NE && (p->kind == TEXT || is(p, "true") || is(p, "false"))) return fail(p, p->word, "text has no order: ==, ~= and in compare it");
    EV_TRY(take_value(p, t->column, &text));
  }
  t->n = N(p->values, value) - t->first;
  return EV_OK;
}

static ev_status add_node(parser *p, node n, uint32_t *out) {
  *out = N(p->nodes, node);
  return ev_buf_append(&p->nodes, &n, sizeof n);
}

static ev_status condition(parser *p, int depth, uint32_t *out);

static ev_status one(parser *p, int depth, uint32_t *out) {
  bool negated = false;
  for (; is(p, "not"); negated = !negated) EV_TRY(next(p));
  if (is(p, "(")) {
    if (depth == DEPTH_MAX) return fail(p, p->word, "more than %d parentheses within each other", DEPTH_MAX);
    EV_TRY(next(p));
    EV_TRY(condition(p, depth + 1, out));
    if (!is(p, ")")) return unexpected(p, "'and', 'or' or ')'");
    EV_TRY(next(p));
    AT(p->nodes, node, *out)->negated ^= negated;
    return EV_OK;
  }
  where_test t;
  EV_TRY(comparison(p, &t));
  EV_TRY(add_node(p, (node){TEST, negated, EV_NONE, EV_NONE, N(p->tests, where_test)}, out));
  return ev_buf_append(&p->tests, &t, sizeof t);
}

/* A chain of and (joined = AND) or of or; one operand alone stands for itself. */
static ev_status chain(parser *p, int depth, int joined, uint32_t *out) {
  const char *word = joined == AND ? "and" : "or";
  uint32_t all = EV_NONE, item;
  for (bool more = true; more;) {
    EV_TRY(joined == AND ? one(p, depth, &item) : chain(p, depth, AND, &item));
    more = is(p, word);
    if (all == EV_NONE && !more) {
      *out = item;
      return EV_OK;
    }
    if (all == EV_NONE) EV_TRY(add_node(p, (node){joined == AND ? AND : OR, false, EV_NONE, EV_NONE, 0}, &all));
    AT(p->nodes, node, item)->next = AT(p->nodes, node, all)->child;
    AT(p->nodes, node, all)->child = item;
    if (more) EV_TRY(next(p));
  }
  *out = all;
  return EV_OK;
}

static ev_status condition(parser *p, int depth, uint32_t *out) { return chain(p, depth, OR, out); }

/* ---- From the tree to the list -------------------------------------------------------------------------*/
/* Writes the node's tests before those already written, *first being the first of them. → where the node begins. */
static uint32_t emit(const parser *p, uint32_t at, bool negated, uint32_t yes, uint32_t no, uint32_t *first) {
  const node *n = AT(p->nodes, node, at);
  negated ^= n->negated;
  if (n->kind == TEST) {
    where_test *t = &p->w->tests[--*first];
    *t = *AT(p->tests, where_test, n->test);
    t->op = negated ? t->op ^ 1 : t->op;
    t->yes = yes;
    t->no = no;
    return *first;
  }
  bool all = (n->kind == AND) != negated; /* not (a or b) is (not a) and (not b) */
  uint32_t begin = all ? yes : no;
  for (uint32_t child = n->child; child != EV_NONE; child = AT(p->nodes, node, child)->next)
    begin = all ? emit(p, child, negated, begin, no, first) : emit(p, child, negated, yes, begin, first);
  return begin;
}

static int by_text(const void *x, const void *y, void *bytes) { /* column, length, bytes */
  const value *a = x, *b = y;
  if (a->column != b->column) return a->column < b->column ? -1 : 1;
  if (a->len != b->len) return a->len < b->len ? -1 : 1;
  return memcmp((const char *)bytes + a->at, (const char *)bytes + b->at, a->len);
}

static int by_float(const void *x, const void *y) { return (*(const float *)x > *(const float *)y) - (*(const float *)x < *(const float *)y); }

static size_t look_of(const char *s, size_t len) { return (len * 16 + (len > 0 ? (unsigned char)s[0] % 16 : 0)) % 256; }

/* The codes of a column's sorted texts v (n): asked of its table, or by one walk over its vocabulary, most of which is told apart
 * by its look. */
static void resolve(const ev_column *c, const char *bytes, const value *v, size_t n, uint32_t *codes) {
  bool wanted[256] = {false};
  for (size_t i = 0; i < n && c->ids != NULL; i++) {
    uint32_t code = ev_ids_find(c->ids, bytes + v[i].at, v[i].len);
    codes[v[i].index] = code < c->n_tokens ? code : EV_NONE; /* younger ones are of rows that *out does not know */
  }
  if (c->ids != NULL) return;
  for (size_t i = 0; i < n; i++) wanted[look_of(bytes + v[i].at, v[i].len)] = true;
  for (uint32_t code = 0; code < c->n_tokens; code++) {
    size_t len, low = 0, high = n;
    const char *s = ev_column_token(c, code, &len);
    if (!wanted[look_of(s, len)]) continue;
    while (low < high) { /* the first that is not less */
      size_t middle = (low + high) / 2;
      const value *m = &v[middle];
      if (m->len < len || (m->len == len && memcmp(bytes + m->at, s, len) < 0)) low = middle + 1;
      else high = middle;
    }
    for (; low < n && v[low].len == len && memcmp(bytes + v[low].at, s, len) == 0; low++) codes[v[low].index] = code;
  }
}

static ev_status resolve_all(parser *p) {
  ev_where *w = p->w;
  size_t n_values = N(p->values, value), n = 0;
  value *texts = ev_alloc(n_values, sizeof *texts);
  if (texts == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n_values; i++) {
    const value *v = AT(p->values, value, i);
    w->numbers[i] = v->number;
    w->codes[i] = EV_NONE;
    if (v->text) texts[n++] = *v;
  }
  qsort_r(texts, n, sizeof *texts, by_text, p->bytes.data);
  for (size_t i = 0, end; i < n; i = end) {
    for (end = i + 1; end < n && texts[end].column == texts[i].column; end++) {}
    resolve(&w->columns[texts[i].column], p->bytes.data, texts + i, end - i, w->codes);
  }
  ev_free(texts);
  return EV_OK;
}

/* Sorted numbers, or the codes there are, as a bitmap where they are many. */
static ev_status settle(ev_where *w, where_test *t) {
  const ev_column *c = &w->columns[t->column];
  if (c->type == EV_FLOAT) {
    qsort(w->numbers + t->first, t->n, sizeof *w->numbers, by_float);
    return EV_OK;
  }
  uint32_t *codes = w->codes + t->first, known = 0;
  for (uint32_t i = 0; i < t->n; i++)
    if (codes[i] != EV_NONE) codes[known++] = codes[i];
  t->n = known;
  if (known <= FEW_CODES) return EV_OK;
  t->bits = ev_zalloc((c->n_tokens + 63) / 64, sizeof *t->bits);
  if (t->bits == NULL) return EV_ENOMEM;
  t->n_bits = c->n_tokens;
  for (uint32_t i = 0; i < known; i++) t->bits[codes[i] / 64] |= UINT64_C(1) << (codes[i] % 64);
  return EV_OK;
}

static ev_status finish(parser *p, uint32_t root) {
  ev_where *w = p->w;
  size_t n_values = N(p->values, value);
  uint32_t first = N(p->tests, where_test);
  w->n_columns = N(p->columns, ev_column);
  w->tests = ev_alloc(first, sizeof *w->tests);
  w->columns = ev_alloc(w->n_columns, sizeof *w->columns);
  w->numbers = ev_alloc(n_values, sizeof *w->numbers);
  w->codes = ev_alloc(n_values, sizeof *w->codes);
  if (w->tests == NULL || w->columns == NULL || w->numbers == NULL || w->codes == NULL) return EV_ENOMEM;
  memcpy(w->columns, p->columns.data, w->n_columns * sizeof *w->columns);
  EV_TRY(resolve_all(p));
  w->n_tests = first;
  emit(p, root, false, WHERE_HOLDS, WHERE_FAILS, &first);
  for (size_t i = 0; i < w->n_tests; i++) EV_TRY(settle(w, &w->tests[i]));
  return EV_OK;
}

ev_status ev_where_compile(ev_where **out, const char *text, ev_where_column_fn *columns, void *ctx) {
  *out = NULL;
  size_t len = strlen(text), bad = ev_utf8_invalid(text, len);
  parser p = {.text = text, .at = text, .find = columns, .ctx = ctx};
  uint32_t root = 0;
  if (len > TEXT_MAX) return ev_fail(EV_EINVAL, "where: a condition of %zu bytes; at most %d are read", len, TEXT_MAX);
  if (bad < len) return fail(&p, text + bad, "not UTF-8");
  p.w = ev_zalloc(1, sizeof *p.w);
  ev_status status = p.w == NULL ? EV_ENOMEM : ev_buf_reserve(&p.bytes, 1); /* that an empty text lies somewhere */
  if (status == EV_OK) status = next(&p);
  if (status == EV_OK) status = condition(&p, 0, &root);
  if (status == EV_OK && p.kind != END) status = unexpected(&p, "'and', 'or' or the end");
  if (status == EV_OK) status = finish(&p, root);
  ev_buf *all[] = {&p.bytes, &p.nodes, &p.values, &p.tests, &p.columns};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ev_buf_free(all[i]);
  if (status == EV_OK) *out = p.w;
  else ev_where_free(p.w);
  return status;
}

void ev_where_free(ev_where *w) {
  if (w == NULL) return;
  for (size_t i = 0; i < w->n_tests; i++) ev_free(w->tests[i].bits);
  ev_free(w->tests);
  ev_free(w->columns);
  ev_free(w->numbers);
  ev_free(w->codes);
  ev_free(w);
}
