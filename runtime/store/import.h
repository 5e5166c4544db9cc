/* import.h - what the parsers fill; private to this room. */
#ifndef EV_STORE_IMPORT_H
#define EV_STORE_IMPORT_H

#include "build.h"

/* ---- Dictionary: strings ↔ numbers in order of first appearance ------------------------------------------*/
typedef struct dict {
  char *bytes;          /* the strings, one behind the other */
  uint64_t *ptr;        /* (n + 1) */
  size_t n, cap, bytes_cap;
  struct { uint32_t index, tag; } *slots; /* open addressing; index EV_NONE = free */
  size_t n_slots;
} dict;
ev_status dict_add(dict *d, const char *s, size_t len, uint32_t *out); /* finds or adds */
uint32_t dict_find(const dict *d, const char *s, size_t len);          /* EV_NONE: not there */
void dict_free(dict *d);

/* ---- A column under construction --------------------------------------------------------------------------*/
typedef struct column {
  char *name; /* owned */
  ev_column_type type;
  bool infer;    /* tokens that turn into floats when all of them are numbers (CSV has no types) */
  size_t n, cap; /* rows */
  float *values;   /* FLOAT */
  uint32_t *codes; /* TOKEN: (n); TOKEN_LIST: (n_codes) */
  uint64_t *ptr;   /* TOKEN_LIST: (n + 1) */
  size_t n_codes, codes_cap;
  dict tokens;
} column;

typedef struct columns {
  column *at;
  size_t n;
} columns;
ev_status columns_add(columns *c, const char *name, size_t len, ev_column_type type, column **out); /* EV_EEXIST */
ev_status column_pad(column *c, size_t rows); /* missing values up to row `rows` */
ev_status column_float(column *c, float value);
ev_status column_token(column *c, const char *s, size_t len); /* empty: missing */
ev_status column_list(column *c);                             /* a new row, empty */
ev_status column_list_token(column *c, const char *s, size_t len);
/* Moves the columns of `own`, whose row i is about index[i], behind those of `to`, with n_ids rows in order of index.
 * An index EV_NONE is left out; one twice is an error that names the file and its line (row + 2: the header is line 1). */
ev_status columns_place(columns *to, columns *own, const uint32_t *index, size_t n_rows, size_t n_ids, const char *path);
ev_status columns_finish(columns *c, size_t rows, ev_column **out); /* borrowed views of the columns; *out is freed by ev_free */
void columns_free(columns *c);

/* ---- Interactions under construction ----------------------------------------------------------------------*/
typedef struct raw {
  const ev_import_options *o;
  dict users, items;
  size_t n, cap;
  uint32_t *user, *item, *line; /* (cap) line of the file it stood on */
  uint8_t *fold, *file;         /* (cap) fold of a given file; which file */
  int64_t *time;                /* (cap) when timed */
  float *rating;                /* (cap) when rated */
  bool timed, rated, sequences; /* sequences: rows of a list file, in order */
  columns columns[3];           /* by ev_side */
  const char *names[256];       /* of files, by number */
  size_t n_names;
  uint64_t bytes_done, bytes_here, bytes_all; /* of the files read, of the one at hand, of all */
} raw;
typedef struct interaction {
  const char *user, *item;
  size_t user_len, item_len;
  double rating; /* NAN: none */
  int64_t time;
  bool timed;
} interaction;
ev_status raw_add(raw *r, const interaction *x, uint8_t fold, uint8_t file, size_t line);

/* ---- Text ----------------------------------------------------------------------------------------------*/
#define LINE_MAX_BYTES (64u << 20)
typedef struct lines { /* the lines of a mapped file, checked: UTF-8, no NUL, not longer than LINE_MAX_BYTES */
  const char *path, *at, *end;
  size_t number; /* of the line that next gave */
} lines;
/* False at the end of the file; the line without its newline (and carriage return). A bad line sets *status. */
bool lines_next(lines *l, const char **text, size_t *len, ev_status *status);
const char *quoted(char out[48], const char *s, size_t len); /* 'a value', shortened, unprintables as ? */

/* ---- Parsers: each reads one mapped file -------------------------------------------------------------------*/
ev_status parse_lists(raw *r, const char *path, ev_map map, uint8_t fold, uint8_t file);
ev_status parse_table(raw *r, const char *path, ev_map map, uint8_t fold, uint8_t file, ev_format format);
ev_status parse_jsonl(raw *r, const char *path, ev_map map, uint8_t fold, uint8_t file);
ev_status parse_features(raw *r, const char *path, ev_map map, ev_side side); /* .user, .item: atomic tables */
ev_status parse_attributes(raw *r, const char *path, ev_map map);             /* JSON: item id → list of attributes */

/* ---- After parsing ---------------------------------------------------------------------------------------*/
ev_status check_duplicates(raw *r);
ev_status keep_core(raw *r);
bool cut_in_order(const raw *r, ev_split split); /* a user's later folds hold what came later */
ev_status cut_folds(raw *r, ev_split split, int64_t *valid_cut, int64_t *test_cut);
ev_status keep_rows(raw *r, const uint8_t *keep); /* drops the other interactions, and ids left without any */

#endif
