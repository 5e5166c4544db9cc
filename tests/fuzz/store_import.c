/* store_import.c (fuzz) - damaged text files: refused by name and with nothing left behind, or a sound snapshot, the same every time.
 *
 * Byte 0 of an input is the kind of file, byte 1 the options, the rest the file's text. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

static const char *const names[] = {"in", "in.txt", "in.inter", "in.csv", "in.tsv", "in.jsonl", "in.item", "in.user", "in.json", "train.txt"};
#define N_NAMES (sizeof names / sizeof *names)
static const char *inputs[N_NAMES], *base, *given, *out, *temporary;

static void add(uint8_t kind, uint8_t options, const char *text) {
  char data[2000];
  data[0] = (char)kind;
  data[1] = (char)options;
  memcpy(data + 2, text, strlen(text));
  fuzz_seed(data, strlen(text) + 2);
}

static void make_seeds(void) {
  static const char rows[] = "user,item\nu1,a\nu1,b\nu2,a\nu2,c\nu3,a\nu3,b\n", test[] = "1 9\n2 3\n";
  char name[32];
  for (size_t i = 0; i < N_NAMES; i++) inputs[i] = fuzz_path(names[i]);
  base = fuzz_path("base.csv");
  given = fuzz_path("test.txt");
  out = fuzz_path("out");
  snprintf(name, sizeof name, "out.tmp.%ld", (long)getpid());
  temporary = fuzz_path(name);
  fuzz_write(base, rows, sizeof rows - 1);
  fuzz_write(given, test, sizeof test - 1);
  add(0, 0x00, "user,item,rating\n1,2,3\n");
  add(0, 0x10, "user_id:token\titem_id:token\n1\t2\n3\t2\n");
  add(0, 0x00, "{\"user\":\"u\",\"item\":1}\n");
  add(1, 0x20, "7 5 3\t9  1 \r\nempty\r\nw 1 2 3\nv 8 5");
  add(1, 0x44, "1 2 3 4 5 6\n2 1 2 3\n3 1 2 4\n4 3 4 1\n");
  add(2, 0x42, "user_id:token\titem_id:token\trating:float\ttimestamp:float\tmood:token_seq\tq:token\nu1\ta\t4\t100\tx  y\tq\nu1\tb\t3\t50.9\t\t\nu2\ta\t1\t-7\ty\tr\nu1\ta\t1e0\t3\tx\tq\n");
  add(3, 0x31, "\xEF\xBB\xBFtime,\"item\",extra,user,rating,n\r\n30,\"b, \"\"x\"\"\",red,u1,4.5,1\r\n10,a,,u1,3,2e0\r\n20,a,blue,u2,5,\r\n20,a,blue,u2,1.5,\r\n");
  add(3, 0x48, "user,item,rating\n\xC3\xBC,a,2.999\nv,b,3\nw,a,3.5\nw,b,2\n");
  add(3, 0x40, "\"user\",item,\"title\"\nu,\"a name, and a long one, in quotes\",\"and after it \"\"another\"\", no shorter, so that both outgrow a buffer\"\nu,b,\"\"\n");
  add(4, 0x80, "timestamp\tuserId\tmovieId\n-1.5\t1\t\"2\n-5\t1\t3\n99\t2\t3\n1e9\t2\t2\n");
  add(5, 0x40, "{\"user\":\"u\",\"item\":5,\"tags\":[\"a\",\"b\",3],\"ok\":true,\"w\":1.5,\"time\":1}\n{\"item\":\"\\u00fc\\n\",\"user\":\"u\",\"time\":0.5,\"w\":null}\r\n");
  add(5, 0x85, "{\"uid\":1,\"iid\":2,\"score\":-3}\n{\"uid\":1,\"iid\":3,\"score\":4e-3}\n{\"uid\":2,\"iid\":2,\"score\":5}\n{\"uid\":2,\"iid\":3,\"score\":5}\n");
  add(6, 0x00, "item_id:token\ttitle:token\tgenres:token_seq\tyear:float\nb\tBee, the\tg1 g2\t1990\nz\tZed\t\t\n\xE2\x82\xAC\t\tg2\t-1e3\n");
  add(6, 0x44, "year:float\titem_id:token\n1990\tb\n1991\tstranger\n\ta\n");
  add(7, 0x00, "age:token\tuser_id:token\n33\tu1\n40\tu9\n");
  add(8, 0x00, "{\"a\": [\"x\", \"y\", 12],\n \"none\": [\"z\"], \"c\": []}");
  add(9, 0x00, "1 2 3 4\n2 1\n5 7 8\n");
}

static bool opens(const char *path, ev_hash *h) { /* what an import wrote is a snapshot, and says what it should */
  ev_snapshot *s;
  ev_view *v;
  size_t len;
  if (ev_snapshot_open(&s, path) != EV_OK) return false;
  ev_snapshot_hash(s, h);
  size_t n = ev_snapshot_n_interactions(s), n_users = ev_snapshot_n_users(s), count = 0;
  const int64_t *time = ev_snapshot_times(s), cut = ev_snapshot_cut_time(s, EV_TEST);
  FUZZ_REQUIRE(n > 0);
  for (size_t i = 0; i < n && cut != INT64_MIN; i++) FUZZ_REQUIRE((time[i] >= cut) == (ev_snapshot_folds(s)[i] == EV_TEST));
  for (uint32_t u = 0; u < n_users; u++) {
    const char *id = ev_snapshot_user_id(s, u, &len);
    FUZZ_REQUIRE(len > 0 && ev_snapshot_find_user(s, id, len) == u);
    for (uint64_t i = ev_snapshot_user_ptr(s)[u] + 1; i < ev_snapshot_user_ptr(s)[u + 1]; i++) FUZZ_REQUIRE(time == NULL || time[i - 1] <= time[i]);
  }
  for (uint32_t i = 0; i < ev_snapshot_n_items(s); i++) {
    const char *id = ev_snapshot_item_id(s, i, &len);
    FUZZ_REQUIRE(len > 0 && ev_snapshot_find_item(s, id, len) == i);
  }
  for (unsigned fold = EV_TRAIN; fold <= EV_TEST; fold *= 2) {
    FUZZ_REQUIRE(ev_view_new(&v, s, fold) == EV_OK);
    for (size_t u = 0; u < n_users; u++)
      for (uint64_t k = v->by_user.ptr[u] + 1; k < v->by_user.ptr[u + 1]; k++) FUZZ_REQUIRE(v->seen[k - 1] < v->seen[k]); /* no pair twice */
    count += v->by_user.ptr[n_users];
    ev_view_free(v);
  }
  FUZZ_REQUIRE(count == n);
  ev_snapshot_close(s);
  return true;
}

static void one(const uint8_t *data, size_t len) {
  if (len < 2) return;
  size_t kind = data[0] % N_NAMES;
  const char *files[2] = {base, inputs[kind]};
  bool about_items = kind >= 6 && kind <= 8;
  ev_import_options o;
  ev_hash h[2];
  ev_import_defaults(&o);
  o.files = about_items ? files : files + 1;
  o.n_files = about_items ? 2 : 1;
  o.duplicates = (ev_duplicates)((data[1] & 3) % 3);
  o.k_core = data[1] & 4 ? 2 : 0;
  if (data[1] & 8 && !about_items) o.min_rating = 2;
  o.split = (ev_split)((data[1] >> 4 & 7) % 5);
  if (kind == 9) {
    o.n_files = 0;
    o.train = inputs[9];
    o.test = given;
    o.ordered = data[1] & 8;
    o.min_rating = -INFINITY;
  }
  fuzz_write(inputs[kind], data + 2, len - 2);
  ev_status status = ev_import(&o, out);
  FUZZ_REQUIRE(!ev_file_exists(temporary));
  FUZZ_REQUIRE((status == EV_OK) == ev_file_exists(out));
  if (status != EV_OK) {
    FUZZ_REQUIRE(status == EV_EINVAL || status == EV_ELIMIT);
    FUZZ_REQUIRE(ev_utf8_invalid(ev_error(), strlen(ev_error())) == strlen(ev_error()));
    return;
  }
  FUZZ_REQUIRE(opens(out, &h[0]));
  unlink(out);
  if (!(data[1] & 0x80)) return;
  FUZZ_REQUIRE(ev_import(&o, out) == EV_OK && opens(out, &h[1]) && memcmp(&h[0], &h[1], sizeof h[0]) == 0);
  unlink(out);
}

static const char *const words[] = {"user", "item", "rating", "time", "user_id:token", "item_id:token", ":token_seq", ":float", "\r\n", "\"\"", "\xEF\xBB\xBF",
                                    "\xED\xA0\x80", "\xF0\x9F\x99\x82", "nan", "inf", "1e39", "-1e308", "1e999", "9e15", "-9223372036854775808", "18446744073709551616",
                                    "0x10", "{\"user\":1,\"item\":2}\n", "\\u0000", "\\ud800", "\\n", "null", "[[", "{}", "1 2 3\n", "u1,a\n", NULL};
const fuzz_target fuzz = {make_seeds, one, NULL, words};
