/* store_import.c - text files → snapshot: what good files mean, how bad ones are refused. store_folds.c: what is kept, and where. */
#include <dirent.h>
#include <math.h>

#include "store/store.h"
#include "support.h"

typedef struct text_file {
  const char *name, *text;
} text_file;

static char out_path[96], paths[6][96];

static const char *put(int slot, text_file f) { /* writes it into the folder; the path holds as long as the slot is not used again */
  snprintf(paths[slot], sizeof paths[slot], "%s/%s", folder, f.name);
  write_text(paths[slot], f.text, strlen(f.text));
  return paths[slot];
}

static void clear_folder(void) {
  char command[160];
  snprintf(command, sizeof command, "rm -rf '%s'/*", folder);
  assert_int_equal(system(command), 0);
  snprintf(out_path, sizeof out_path, "%s/out", folder);
}

static size_t n_files(void) {
  DIR *d = opendir(folder);
  size_t n = 0;
  while (readdir(d) != NULL) n++;
  closedir(d);
  return n - 2;
}

static ev_import_options defaults(void) {
  ev_import_options o;
  ev_import_defaults(&o);
  return o;
}

static ev_snapshot *imported(const ev_import_options *o) {
  ev_snapshot *s;
  if (ev_import(o, out_path) != EV_OK) fail_msg("%s", ev_error());
  if (ev_snapshot_open(&s, out_path) != EV_OK) fail_msg("%s", ev_error());
  return s;
}

/* ---- A snapshot as text --------------------------------------------------------------------------------*/
static void tell_column(ev_buf *b, const char *side, const ev_column *c) {
  size_t len;
  ev_buf_printf(b, "%s %s", side, c->name);
  for (size_t i = 0; i < c->n_rows; i++) {
    if (c->type == EV_FLOAT) {
      ev_buf_printf(b, isnan(c->values[i]) ? " -" : " %g", c->values[i]);
    } else if (c->type == EV_TOKEN) {
      const char *token = c->codes[i] == EV_NONE ? "-" : ev_column_token(c, c->codes[i], &len);
      ev_buf_printf(b, " %.*s", c->codes[i] == EV_NONE ? 1 : (int)len, token);
    } else {
      ev_buf_printf(b, " [");
      for (uint64_t k = c->ptr[i]; k < c->ptr[i + 1]; k++) {
        const char *token = ev_column_token(c, c->codes[k], &len);
        ev_buf_printf(b, k > c->ptr[i] ? " %.*s" : "%.*s", (int)len, token);
      }
      ev_buf_printf(b, "]");
    }
  }
  ev_buf_printf(b, "\n");
}

/* "items a|b", then a line "user: item/fold@time*rating …" each, then a line for each column. Freed by ev_buf_free. */
static ev_buf told(const ev_snapshot *s) {
  static const char *const sides[] = {"user", "item", "inter"};
  ev_buf b = {0};
  size_t len;
  const uint64_t *ptr = ev_snapshot_user_ptr(s);
  ev_buf_printf(&b, "items ");
  for (uint32_t i = 0; i < ev_snapshot_n_items(s); i++) {
    const char *id = ev_snapshot_item_id(s, i, &len);
    assert_int_equal(ev_snapshot_find_item(s, id, len), i);
    ev_buf_printf(&b, i > 0 ? "|%.*s" : "%.*s", (int)len, id);
  }
  for (uint32_t u = 0; u < ev_snapshot_n_users(s); u++) {
    const char *id = ev_snapshot_user_id(s, u, &len);
    assert_int_equal(ev_snapshot_find_user(s, id, len), u);
    ev_buf_printf(&b, "\n%.*s:", (int)len, id);
    for (uint64_t i = ptr[u]; i < ptr[u + 1]; i++) {
      const char *item = ev_snapshot_item_id(s, ev_snapshot_items(s)[i], &len);
      ev_buf_printf(&b, " %.*s/%c", (int)len, item, "-TV-E"[ev_snapshot_folds(s)[i]]);
      if (ev_snapshot_times(s) != NULL) ev_buf_printf(&b, "@%lld", (long long)ev_snapshot_times(s)[i]);
      if (ev_snapshot_ratings(s) != NULL) ev_buf_printf(&b, "*%g", ev_snapshot_ratings(s)[i]);
    }
  }
  ev_buf_printf(&b, "\n");
  for (ev_side side = EV_USER; side <= EV_INTERACTION; side++)
    for (size_t c = 0; c < ev_snapshot_n_columns(s, side); c++) tell_column(&b, sides[side], ev_snapshot_column_at(s, side, c));
  return b;
}

typedef struct good {
  text_file files[3], given[3]; /* of any fold; of train, valid, test */
  ev_import_options o;          /* shares 0 unless said; min_rating 0: off */
  const char *tells;
} good;

static const good goods[] = {
    /* lists */
    {.given = {{"train.txt", "0 10 11 12\n1 11\n"}, {0}, {"test.txt", "0 13\n1 10\n"}},
     .tells = "items 10|11|12|13\n0: 10/T 11/T 12/T 13/E\n1: 11/T 10/E\n"},
    {.given = {{"train.txt", "5 1 2\n"}, {"valid.txt", "5 3\n6 1\n"}, {"test.txt", "5 4"}},
     .tells = "items 1|2|3|4\n5: 1/T 2/T 3/V 4/E\n6: 1/V\n"},
    {.given = {{"train.txt", "0 4 3 2 1\n"}, {0}, {"test.txt", "0 5\n"}}, .o = {.ordered = true, .valid_share = 0.25},
     .tells = "items 4|3|2|1|5\n0: 4/T 3/T 2/T 1/V 5/E\n"},
    {.files = {{"seq.txt", "7 5 3\t9  1 \r\nempty\r\nw 1 2 3\nv 8 5"}}, /* sequences: the last is tested, the one before validates */
     .tells = "items 5|3|9|1|2|8\n7: 5/T 3/T 9/V 1/E\nempty:\nw: 1/T 2/V 3/E\nv: 8/T 5/T\n"},
    {.files = {{"seq.txt", "7 -5 +3\n"}, {"items.json", "{\"-5\": [\"x\", \"y\", 12],\n \"none\": [\"z\"], \"+3\": []}"}},
     .tells = "items -5|+3|none\n7: -5/T +3/T\nitem attributes [x y 12] [] [z]\n"},
    {.given = {{"train.txt", "0 1 2\n"}, {0}, {"test.txt", "0 2 3\n"}}, .o = {.duplicates = EV_DUP_FIRST}, .tells = "items 1|2|3\n0: 1/T 2/T 3/E\n"},
    {.files = {{"a.txt", "1 2\n"}, {"a.json", "{\"2\": []}"}}, .tells = "items 2\n1: 2/T\nitem attributes []\n"},
    /* atomic files */
    {.files = {{"a.item", "item_id:token\ttitle:token\tgenres:token_seq\tyear:float\nb\tBee, the\tg1 g2\t1990\nz\tZed\t\t\n"},
               {"a.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\tmood:token_seq\nu1\ta\t4\t100\tx  y\nu1\tb\t3\t50.9\t\n"},
               {"a.user", "age:token\tuser_id:token\n33\tu1\n40\tu9\n"}},
     .o = {.split = EV_SPLIT_RATIO},
     .tells = "items a|b|z\nu1: b/T@50*3 a/T@100*4\nu9:\nuser age 33 40\nitem title - Bee, the Zed\nitem genres [] [g1 g2] []\nitem year - 1990 -\n"
              "inter mood [] [x y]\n"},
    {.files = {{"a.inter", "item_id:token\tuser_id:token\na\tu\nb\tu\na\tv\nb\tv\nc\tv\n"}, {"a.item", "item_id:token\tn:float\nc\t1\nb\t2\na\t3\nd\t4\n"}},
     .o = {.split = EV_SPLIT_RATIO, .k_core = 2}, .tells = "items a|b\nu: a/T b/T\nv: a/T b/T\nitem n 3 2\n"}, /* outside the core nobody is added */
    {.files = {{"a.inter", "user_id:token\titem_id:token\nu\ta\n"}, {"b.inter", "item_id:token\tuser_id:token\tplace:token\nb\tu\thome\n"}},
     .o = {.split = EV_SPLIT_RATIO}, .tells = "items a|b\nu: a/T b/T\ninter place - home\n"},
    /* CSV and TSV */
    {.files = {{"a.csv", "\xEF\xBB\xBFtime,\"item\",extra,user,rating,n\r\n30,\"b, \"\"x\"\"\",red,u1,4.5,1\r\n10,a,,u1,3,2e0\r\n20,a,blue,u2,5,\r\n"}},
     .o = {.test_share = 0.34},
     .tells = "items b, \"x\"|a\nu1: a/T@10*3 b, \"x\"/E@30*4.5\nu2: a/E@20*5\ninter extra - red blue\ninter n 2 1 -\n"},
    {.files = {{"a.tsv", "timestamp\tuserId\tmovieId\n-1.5\t1\t\"2\n-5\t1\t3\n"}}, .o = {.split = EV_SPLIT_RATIO},
     .tells = "items \"2|3\n1: 3/T@-5 \"2/T@-2\n"},
    {.files = {{"a.csv", "user,item,time\nu,a,6e12\nu,b,-6e12\nu,c,0\n"}}, .o = {.test_share = 0.4},
     .tells = "items a|b|c\nu: b/T@-6000000000000 c/E@0 a/E@6000000000000\n"},
    {.files = {{"a.csv", "who,what,user,when\nu,a,x,7\nv,b,y,8\n"}}, .o = {.user = "who", .item = "what", .time = "when", .split = EV_SPLIT_RATIO},
     .tells = "items a|b\nu: a/T@7\nv: b/T@8\ninter user x y\n"},
    {.files = {{"a.csv", "user,item,big\nu,a,1e39\nv,b,2\n"}}, .o = {.split = EV_SPLIT_RATIO}, .tells = "items a|b\nu: a/T\nv: b/T\ninter big 1e39 2\n"}, /* no float: tokens */
    {.files = {{"a.csv", "user,item,time\nu,a,5\nu,b,1\nu,a,9\nu,a,7\n"}}, .o = {.split = EV_SPLIT_RATIO, .duplicates = EV_DUP_LAST}, .tells = "items b|a\nu: b/T@1 a/T@9\n"},
    {.files = {{"a.csv", "user,item,time\nu,a,5\nu,b,1\nu,a,9\nu,a,4\n"}}, .o = {.split = EV_SPLIT_RATIO, .duplicates = EV_DUP_FIRST}, .tells = "items b|a\nu: b/T@1 a/T@4\n"},
    {.files = {{"a.csv", "user,item,rating\nu,a,1\nu,b,9\nu,a,2\n"}}, .o = {.duplicates = EV_DUP_LAST}, .tells = "items b|a\nu: b/T*9 a/T*2\n"},
    {.files = {{"a.csv", "user,item,rating\nu,a,1\nu,b,9\nu,a,2\n"}}, .o = {.duplicates = EV_DUP_FIRST}, .tells = "items a|b\nu: a/T*1 b/T*9\n"},
    {.files = {{"a.csv", "user,item,rating,x\nu,a,2.999,p\nv,b,3,q\nw,a,3.5,r\n"}}, .o = {.min_rating = 3}, .tells = "items b|a\nv: b/T*3\nw: a/T*3.5\ninter x q r\n"},
    /* JSON Lines */
    {.files = {{"a.jsonl", "{\"user\":\"u\",\"item\":5,\"tags\":[\"a\",\"b\",3],\"ok\":true,\"w\":1.5,\"time\":1}\n{\"item\":\"\\u00fc\\n\",\"user\":\"u\",\"time\":0.5,\"w\":null}\r\n"}},
     .o = {.split = EV_SPLIT_RATIO}, .tells = "items 5|\xC3\xBC\n\nu: \xC3\xBC\n/T@0 5/T@1\ninter tags [] [a b 3]\ninter ok - true\ninter w - 1.5\n"},
    {.files = {{"a.ndjson", "{\"uid\":1,\"iid\":2,\"score\":-3}"}}, .tells = "items 2\n1: 2/T*-3\n"},
    /* formats told from the text */
    {.files = {{"one", "{\"user\":1,\"item\":2}\n"}}, .tells = "items 2\n1: 2/T\n"},
    {.files = {{"two", "user_id:token\titem_id:token\n1\t2\n"}}, .tells = "items 2\n1: 2/T\n"},
    {.files = {{"three", "user\titem\n1\t2\n"}}, .tells = "items 2\n1: 2/T\n"},
    {.files = {{"four", "user,item\n1,2\n"}}, .tells = "items 2\n1: 2/T\n"},
    {.files = {{"five", "1 2\n"}}, .tells = "items 2\n1: 2/T\n"},
    {.files = {{"six.csv", "user\titem\n1\t2\n"}}, .o = {.format = EV_FORMAT_TSV}, .tells = "items 2\n1: 2/T\n"},
};

static void good_files_mean_what_they_say(void **s) {
  (void)s;
  for (size_t i = 0; i < sizeof goods / sizeof *goods; i++) {
    const good *g = &goods[i];
    const char *files[3];
    ev_import_options o = g->o;
    clear_folder();
    for (int k = 0; k < 3 && g->files[k].name != NULL; k++) files[o.n_files++] = put(k, g->files[k]);
    o.files = files;
    o.train = g->given[0].name != NULL ? put(3, g->given[0]) : NULL;
    o.valid = g->given[1].name != NULL ? put(4, g->given[1]) : NULL;
    o.test = g->given[2].name != NULL ? put(5, g->given[2]) : NULL;
    if (o.min_rating == 0) o.min_rating = -INFINITY;
    size_t before = n_files();
    ev_snapshot *x = imported(&o);
    ev_buf b = told(x);
    if (strcmp(b.data, g->tells) != 0) fail_msg("case %zu (%s):\n%swanted:\n%s", i, g->files[0].name, b.data, g->tells);
    assert_int_equal(n_files(), before + 1);
    ev_buf_free(&b);
    ev_snapshot_close(x);
  }
}

/* ---- Bad files -----------------------------------------------------------------------------------------*/
typedef struct bad {
  text_file file;    /* the one at fault, read last */
  unsigned line;     /* of it; 0: the message names no line */
  const char *value; /* that the message shows */
  text_file before;
  ev_import_options o;
} bad;

static const bad bads[] = {
    {.file = {"a.csv", "user,item\na,b\na,c,d\n"}, 3, "3 fields"},
    {.file = {"a.csv", "user,item,time\na,b,1\nc,d"}, 3, "2 fields"}, /* cut short */
    {.file = {"a.tsv", "user\titem\na\n"}, 2, "1 fields"},
    {.file = {"a.csv", "user,item,rating\na,b,1\na,c,good\n"}, 3, "'good'"},
    {.file = {"a.csv", "user,item,rating\na,b,nan\n"}, 2, "'nan'"},
    {.file = {"a.csv", "user,item,rating\na,b,-inf\n"}, 2, "'-inf'"},
    {.file = {"a.csv", "user,item,rating\na,b,1e39\n"}, 2, "'1e39'"}, /* beyond a float */
    {.file = {"a.csv", "user,item,rating\na,b,\n"}, 2, "''"},
    {.file = {"a.csv", "user,item,rating\na,b,0x10\n"}, 2, "'0x10'"},
    {.file = {"a.csv", "user,item,time\na,b,yesterday\n"}, 2, "'yesterday'"},
    {.file = {"a.csv", "user,item,time\na,b,1e16\n"}, 2, "'1e16'"},
    {.file = {"a.csv", "user,item,time\na,b,-99999999999999999999\n"}, 2, "'-99999999999999999999'"},
    {.file = {"a.csv", "user,item,time\na,b,\n"}, 2, "''"},
    {.file = {"a.csv", "user,item\na,b\n"}, 1, "'stars'", .o = {.rating = "stars"}},
    {.file = {"a.csv", "who,item\na,b\n"}, 1, "no user column"},
    {.file = {"a.csv", "user,what\na,b\n"}, 1, "no item column"},
    {.file = {"a.csv", "1,2\n3,4\n"}, 1, "no user column"}, /* no header */
    {.file = {"a.csv", "user,user_id,item\na,b,c\n"}, 1, "'user_id'"},
    {.file = {"a.csv", "user,item,x,x\na,b,c,d\n"}, 1, "x"},
    {.file = {"a.csv", "user,item,\na,b,c\n"}, 1, "''"},
    {.file = {"a.csv", ""}, 1, "empty"},
    {.file = {"a.jsonl", ""}, 1, "empty"},
    {.file = {"a.txt", ""}, 1, "empty"},
    {.file = {"a.csv", "user,item\n"}, 1, "no rows"},
    {.file = {"a.csv", "user,item\na,b\xFF\n"}, 2, "0xFF"},
    {.file = {"a.csv", "user,item\na,\xC3\n"}, 2, "0xC3"},
    {.file = {"a.txt", "1 2\n3 \xED\xA0\x80\n"}, 2, "0xED"},
    {.file = {"a.jsonl", "{\"user\":\"\xFE\",\"item\":1}"}, 1, "0xFE"},
    {.file = {"a.csv", "user,item\na,b\nc,d\na,b\n"}, 4, "a.csv:2"},
    {.file = {"a.csv", "user,item\nsomebody,b\nc,d\nsomebody,b\n"}, 4, "'somebody'"},
    {.file = {"a.csv", "user,item\na,b\n\nc,d\n"}, 3, "empty line"},
    {.file = {"a.csv", "user,item\n,b\n"}, 2, "user is empty"},
    {.file = {"a.csv", "user,item\na,\n"}, 2, "item is empty"},
    {.file = {"a.csv", "user,item\n\"\",b\n"}, 2, "user is empty"},
    {.file = {"a.csv", "user,item\na,\"b\nc\",d\n"}, 2, "quote"},
    {.file = {"a.csv", "user,item\na,\"b\"c\n"}, 2, "closing quote"},
    {.file = {"a.csv", "user,item\nb,c\n"}, 2, "no time", .before = {"b.csv", "user,item,time\na,b,5\n"}},
    {.file = {"a.csv", "user,item,time\nb,c,3\n"}, 2, "a time", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.txt", "1 2\n"}, 1, "no time", .before = {"b.csv", "user,item,time\na,b,5\n"}},
    {.file = {"a.csv", "user,item,rating\nb,c,3\n"}, 2, "a rating", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.csv", "user,item\nb,c\n"}, 2, "no rating", .before = {"b.csv", "user,item,rating\na,b,1\n"}},
    {.file = {"a.inter", "user_id:token\titem_id:token\tx:float\na\tb\t1\n"}, 1, "'x'", .before = {"b.inter", "user_id:token\titem_id:token\tx:token\nc\td\t1\n"}},
    {.file = {"a.inter", "user_id:token\titem_id\na\tb\n"}, 1, "'item_id'"},
    {.file = {"a.inter", "user_id:token\titem_id:int\na\tb\n"}, 1, "'int'"},
    {.file = {"a.inter", "user_id:token\titem_id:token\tx:float_seq\na\tb\t1\n"}, 1, "'float_seq'"},
    {.file = {"a.inter", "user_id:token\titem_id:token\tx:float\na\tb\t1\na\tc\t12x\n"}, 3, "'12x'"},
    {.file = {"a.inter", "user_id:token\titem_id:token\tx:float\na\tb\t1\na\tc\t-1e300\n"}, 3, "'-1e300'"},
    {.file = {"a.item", "item_id:token\tx:float\nb\t1\nb\t2\n"}, 3, "line 2", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.item", "item_id:token\tx:float\nstranger\t1\nb\t1\nb\t2\n"}, 4, "line 3", .before = {"b.csv", "user,item\na,b\n"}, .o = {.k_core = 1}},
    {.file = {"a.item", "item_id:token\tx:float\nb\tone\n"}, 2, "'one'", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.item", "item_id:token\tx:float\n\t1\n"}, 2, "id is empty", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.item", "id:token\tx:float\nb\t1\n"}, 1, "no item column", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.user", "user_id:token\nb\tc\n"}, 2, "2 fields", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.json", "{\"b\": [\"x\"],\n\"c\": [}"}, 2, "not JSON", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.json", "{\"b\": \"x\"}"}, 1, "'b'", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.json", "{\"\": [\"x\"]}"}, 1, "id is empty", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.json", "{\"b\": [1.5]}"}, 1, "'b'", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.json", "[\"b\"]"}, 1, "object", .before = {"b.csv", "user,item\na,b\n"}},
    {.file = {"a.txt", "1 2\n3 4 x5 6\n"}, 2, "'x5'"},
    {.file = {"a.txt", "1 2\n3 99999999999999999999\n"}, 2, "'99999999999999999999'"},
    {.file = {"a.txt", "1 2\n3 1.5\n"}, 2, "'1.5'"},
    {.file = {"a.txt", "1 2\n\n3 4\n"}, 2, "empty line"},
    {.file = {"a.txt", "1\n2\n"}, 1, "no interactions"},
    {.file = {"a.txt", "1 2 3 2\n"}, 1, "'2'"}, /* twice in one list */
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2}\n{\"user\":1,\"item\":"}, 2, "not JSON"}, /* cut short */
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2}\n\n"}, 2, "not JSON"},
    {.file = {"a.jsonl", "{\"user\":\"\\u3\xC3\xA9\"}\n"}, 1, "not JSON"}, /* the parser's own message ends within a character */
    {.file = {"a.jsonl", "[1,2]\n"}, 1, "not an object"},
    {.file = {"a.jsonl", "{\"item\":2}\n"}, 1, "no user"},
    {.file = {"a.jsonl", "{\"user\":1.5,\"item\":2}\n"}, 1, "no user"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":\"\"}\n"}, 1, "no item"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"user\":3}\n"}, 1, "duplicate"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"rating\":\"5\"}\n"}, 1, "rating"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"rating\":NaN}\n"}, 1, "NaN"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"rating\":1e39}\n"}, 1, "rating"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"time\":1e16}\n"}, 1, "time"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"time\":1}\n{\"user\":1,\"item\":3}\n"}, 2, "no time"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"x\":{}}\n"}, 1, "'x'"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"x\":[[]]}\n"}, 1, "'x'"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"x\":1e39}\n"}, 1, "'x'"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"x\":1}\n{\"user\":1,\"item\":3,\"x\":\"1\"}\n"}, 2, "'x'"},
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"x\\n0 0 y\":1}\n"}, 1, "'x?0 0 y'"}, /* would be two columns */
    {.file = {"a.jsonl", "{\"user\":1,\"item\":2,\"\":1}\n"}, 1, "''"},
    {.file = {"a.csv", "user,item\na,b\n"}, 0, "no times", .o = {.split = EV_SPLIT_TIME}},
    {.file = {"a.csv", "user,item\na,b\n"}, 0, "no times", .o = {.split = EV_SPLIT_LEAVE_ONE_OUT}},
    {.file = {"a.csv", "user,item\na,b\n"}, 0, "no times", .o = {.split = EV_SPLIT_LAST}},
    {.file = {"a.csv", "user,item\na,b\n"}, 0, "no ratings", .o = {.min_rating = 1}},
    {.file = {"a.csv", "user,item,rating\na,b,1\n"}, 0, "no interaction is left", .o = {.min_rating = 1.5}},
    {.file = {"a.csv", "user,item\na,b\n"}, 0, "--test", .o = {.split = EV_SPLIT_GIVEN}},
    {.file = {"a.csv", "user,item\na,b\n"}, 0, "0.5", .o = {.valid_share = 0.5, .test_share = 0.5}},
    {.file = {"a.csv", "user,item,time\na,b,1\na,c,1\n"}, 0, "same time", .o = {.test_share = 0.5}},
};

static void refuse(const bad *b, const ev_import_options *o, const char *path, size_t files, const ev_hash *old) {
  char where[160];
  ev_snapshot *x;
  ev_hash h;
  ev_status status = ev_import(o, out_path);
  if (status != EV_EINVAL) fail_msg("%s: %s", b->value, status == EV_OK ? "accepted" : ev_error());
  snprintf(where, sizeof where, "%s:%u: ", path, b->line);
  if (b->line > 0 && strncmp(ev_error(), where, strlen(where)) != 0) fail_msg("wanted %s, got %s", where, ev_error());
  if (strstr(ev_error(), b->value) == NULL) fail_msg("wanted %s, got %s", b->value, ev_error());
  assert_int_equal(ev_utf8_invalid(ev_error(), strlen(ev_error())), strlen(ev_error()));
  assert_int_equal(n_files(), files);
  assert_int_equal(ev_snapshot_open(&x, out_path), EV_OK); /* the snapshot that was there before is the one there now */
  ev_snapshot_hash(x, &h);
  ev_snapshot_close(x);
  assert_memory_equal(&h, old, sizeof h);
}

static void bad_files_are_refused_by_line_and_value_and_leave_nothing(void **s) {
  (void)s;
  for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
    const bad *b = &bads[i];
    const char *files[2];
    ev_hash old;
    clear_folder();
    ev_import_options o = defaults();
    files[0] = put(2, (text_file){"old.csv", "user,item\nold,old\n"});
    o.files = files;
    o.n_files = 1;
    ev_snapshot *x = imported(&o);
    ev_snapshot_hash(x, &old);
    ev_snapshot_close(x);
    o = b->o;
    if (o.min_rating == 0) o.min_rating = -INFINITY;
    if (b->before.name != NULL) files[o.n_files++] = put(1, b->before);
    files[o.n_files++] = put(0, b->file);
    o.files = files;
    refuse(b, &o, paths[0], 3 + (b->before.name != NULL), &old);
  }
}

static void what_no_string_can_hold_is_refused_too(void **s) {
  (void)s;
  static const char nul[] = "user,item\na,b\0c\n";
  const bad expected[] = {{.line = 2, .value = "NUL"}, {.line = 1, .value = "64 MiB"}, {.line = 1, .value = "256 fields"}, {.value = "regular file"}};
  const char *files[1];
  ev_import_options o = defaults();
  ev_hash old;
  clear_folder();
  o.files = files;
  o.n_files = 1;
  files[0] = put(0, (text_file){"old.csv", "user,item\nold,old\n"});
  ev_snapshot *x = imported(&o);
  ev_snapshot_hash(x, &old);
  ev_snapshot_close(x);
  files[0] = put(0, (text_file){"a.csv", ""});
  write_text(paths[0], nul, sizeof nul - 1);
  refuse(&expected[0], &o, paths[0], 3, &old);
  assert_int_equal(truncate(paths[0], 0), 0);
  assert_int_equal(truncate(paths[0], (64 << 20) + 1), 0); /* one line without an end, of nothing but a hole */
  refuse(&expected[1], &o, paths[0], 3, &old);
  ev_buf b = {0};
  for (int i = 0; i < 257; i++) ev_buf_printf(&b, i > 0 ? ",c%d" : "c%d", i);
  write_text(paths[0], b.data, b.len);
  ev_buf_free(&b);
  refuse(&expected[2], &o, paths[0], 3, &old);
  files[0] = folder;
  refuse(&expected[3], &o, folder, 3, &old);
  files[0] = in_folder("absent");
  assert_int_equal(ev_import(&o, out_path), EV_ENOTFOUND);
  assert_int_equal(n_files(), 3);
}

/* ---- The rest ------------------------------------------------------------------------------------------*/
static void an_import_survives_faults(void **s) {
  (void)s;
  const char *files[4];
  clear_folder();
  files[0] = put(0, (text_file){"a.csv", "user,item,time,rating,x,y\nu,a,1,4,p,1\nu,\"b\"\"\",2,5,q,2\nv,a,3,3,,3\nv,\"b\"\"\",4,4,r,\nv,c,5,1,,9\nv,a,6,2,,5\n"});
  files[1] = put(1, (text_file){"a.item", "item_id:token\tg:token_seq\ty:float\nb\"\tg1 g2\t1\na\tg1\t2\nd\t\t3\n"});
  files[2] = put(2, (text_file){"a.json", "{\"a\":[\"x\"],\"e\":[\"y\"]}"});
  files[3] = put(3, (text_file){"a.user", "user_id:token\tz:token\nv\t1\n"});
  ev_import_options o = defaults();
  o.files = files;
  o.n_files = 4;
  o.duplicates = EV_DUP_LAST;
  o.k_core = 2;
  o.min_rating = 2;
  for (ev_split split = EV_SPLIT_LEAVE_ONE_OUT; split <= EV_SPLIT_LAST; split++) {
    o.split = split;
    ASSERT_SURVIVES_FAULTS(ev_import(&o, out_path), );
    assert_int_equal(n_files(), 5);
    assert_int_equal(unlink(out_path), 0);
  }
  files[0] = put(0, (text_file){"a.jsonl", "{\"user\":1,\"item\":\"a\",\"n\":3,\"t\":[\"x\",\"y\"],\"b\":false}\n{\"user\":2,\"item\":\"e\"}\n"});
  o = defaults();
  o.files = files;
  o.n_files = 3;
  ASSERT_SURVIVES_FAULTS(ev_import(&o, out_path), );
  o = defaults();
  o.train = put(4, (text_file){"train.txt", "1 2 3 4\n5 6 2 3\n"});
  o.test = put(5, (text_file){"test.txt", "1 7\n"});
  ASSERT_SURVIVES_FAULTS(ev_import(&o, out_path), );
}

static uint64_t reported[2], calls;
static void note(void *ctx, uint64_t done, uint64_t all) {
  (void)ctx;
  assert_true(done >= reported[0] && done <= all);
  reported[0] = done;
  reported[1] = all;
  calls++;
}

static void a_long_import_reports_its_bytes_and_can_be_interrupted(void **s) {
  (void)s;
  ev_buf b = {0};
  clear_folder();
  ev_buf_printf(&b, "user,item\n");
  for (int i = 0; i < 200000; i++) ev_buf_printf(&b, "u%d,i%d\n", i / 100, i % 100);
  ev_import_options o = defaults();
  const char *file = put(0, (text_file){"a.csv", b.data});
  o.files = &file;
  o.n_files = 1;
  o.progress = note;
  ev_snapshot *x = imported(&o);
  assert_int_equal(ev_snapshot_n_interactions(x), 200000);
  ev_snapshot_close(x);
  assert_int_equal(reported[1], b.len);
  assert_int_equal(calls, 3);
  assert_true(reported[0] > b.len * 9 / 10); /* row 196608 of 200000 */
  ev_buf_free(&b);
  assert_int_equal(unlink(out_path), 0);
  ev_interrupt();
  assert_int_equal(ev_import(&o, out_path), EV_EINTR);
  ev_interrupt_clear();
  assert_int_equal(n_files(), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(good_files_mean_what_they_say), cmocka_unit_test(bad_files_are_refused_by_line_and_value_and_leave_nothing),
      cmocka_unit_test(what_no_string_can_hold_is_refused_too), cmocka_unit_test(an_import_survives_faults),
      cmocka_unit_test(a_long_import_reports_its_bytes_and_can_be_interrupted),
  };
  return RUN(tests);
}
