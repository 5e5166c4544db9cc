/* reward_bandit.c (fuzz) - damaged bandit logs as text: refused by name, or a log that survives being written, opened and used.
 *
 * Byte 0 of an input: 0 a log, 1 a table with a sound item_context, 2 an item_context to a sound table; the rest is the file's text. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "reward/reward.h"

static const char *input, *table, *items, *out;
static const char sound_table[] = "timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0,user-item_affinity_1\n"
                                  "2019-11-24 00:00:01.5+00:00,0,1,0,0.5,u,0.0,1\n2019-11-24 00:00:02+00:00,1,2,1,0.25,v,2,0.5\n";
static const char sound_items[] = ",item_id,item_feature_0,item_feature_1\n0,0,-0.5,x\n1,1,2,y\n";

static void add(uint8_t kind, const char *text) {
  char data[2000];
  data[0] = (char)kind;
  memcpy(data + 1, text, strlen(text));
  fuzz_seed(data, strlen(text) + 1);
}

static void make_seeds(void) {
  input = fuzz_path("input");
  table = fuzz_path("men.csv");
  items = fuzz_path("items.csv");
  out = fuzz_path("log.evb");
  fuzz_write(table, sound_table, sizeof sound_table - 1);
  fuzz_write(items, sound_items, sizeof sound_items - 1);
  add(1, sound_table);
  add(2, sound_items);
  add(0, "\xEF\xBB\xBFitem_id,click,propensity_score\r\n3,1,1\r\n\"0\",0,1e-3\r\n");
  add(0, "{\"arms\":[\"a\",\"b\",3],\"positions\":2,\"reward_range\":[-1,1]}\n{\"arm\":\"a\",\"position\":1,\"reward\":0.5,\"propensity\":0.5,\"probabilities\":[0.5,0.5,0],\"evaluated\":{\"b\":1},\"time\":\"2020-02-29T12:00:00Z\"}\n"
         "{\"arm\":3,\"position\":2,\"reward\":-1,\"propensity\":1,\"probabilities\":{\"3\":1},\"evaluated\":[0,0,1],\"time\":1e9}\n");
  add(0, "{\"context\":[1,2.5],\"arm\":1,\"reward\":true,\"propensity\":0.5,\"user\":\"u\"}\n\n{\"context\":[-1,0],\"arm\":\"\\u00fc\",\"reward\":3,\"propensity\":1e-9,\"user\":7,\"_x\":[[]]}\n");
  add(0, "{\"context\":{\"p\":1,\"q\":0},\"slate\":[\"a\",\"b\"],\"rewards\":[0,1],\"propensities\":[0.5,1],\"marginals\":[0.5,0.5],\"probabilities\":[{\"a\":0.5,\"b\":0.5},{\"b\":1}]}\n"
         "{\"context\":{\"q\":2,\"p\":1},\"slate\":[\"b\"],\"rewards\":[0.25],\"propensities\":[0.5],\"marginals\":[0.5],\"probabilities\":[{\"a\":0.5,\"b\":0.5}]}\n");
}

static void use(const ev_bandit_log *log) { /* what anybody may do with a log */
  for (size_t i = 0; i < log->n * log->length; i++) {
    FUZZ_REQUIRE(log->arm[i] < log->n_arms || (log->slates && log->arm[i] == EV_NONE));
    FUZZ_REQUIRE(log->arm[i] == EV_NONE || (log->propensity[i] > 0 && log->propensity[i] <= 1 && isfinite(log->reward[i])));
  }
  if (log->slates || log->n_arms * log->n_positions > 100000 || log->features.n_context > 50 || log->n_arms + log->features.n_arm_features > 200) return;
  ev_ope_log rows = ev_bandit_log_rows(log);
  FUZZ_REQUIRE(ev_ope_check(&rows) == EV_OK);
  double *shares = ev_alloc(log->n_positions, log->n_arms * sizeof *shares), *q = ev_alloc(log->n, log->n_arms * sizeof *q);
  if (ev_bandit_log_shares(shares, log, false) == EV_OK)
    for (size_t i = 0; i < log->n_positions * log->n_arms; i++) FUZZ_REQUIRE(shares[i] >= 0 && shares[i] <= 1 + 1e-9);
  ev_ope_model m;
  ev_ope_model_defaults(&m);
  m.folds = 1;
  ev_status status = ev_ope_regress(q, &rows, &log->features, &m);
  FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL);
  ev_free(shares);
  ev_free(q);
}

static void one(const uint8_t *data, size_t len) {
  if (len < 1) return;
  int kind = data[0] % 3;
  ev_bandit_log *log, *again;
  ev_hash h[2];
  fuzz_write(input, data + 1, len - 1);
  ev_status status = kind == 0 ? ev_bandit_log_read(&log, input, NULL, NULL) : ev_bandit_log_read(&log, kind == 1 ? input : table, kind == 1 ? items : input, NULL);
  if (status != EV_OK) {
    FUZZ_REQUIRE(status == EV_EINVAL || status == EV_ELIMIT);
    FUZZ_REQUIRE(ev_utf8_invalid(ev_error(), strlen(ev_error())) == strlen(ev_error()));
    return;
  }
  use(log);
  FUZZ_REQUIRE(ev_bandit_log_write(log, out) == EV_OK);
  if (ev_bandit_log_open(&again, out) != EV_OK) fuzz_wrong(__FILE__, __LINE__, ev_error());
  use(again);
  ev_bandit_log_hash(again, &h[0]);
  FUZZ_REQUIRE(ev_bandit_log_write(again, out) == EV_OK);
  ev_bandit_log_close(again);
  FUZZ_REQUIRE(ev_bandit_log_open(&again, out) == EV_OK);
  ev_bandit_log_hash(again, &h[1]);
  FUZZ_REQUIRE(memcmp(&h[0], &h[1], sizeof h[0]) == 0);
  ev_bandit_log_close(again);
  ev_bandit_log_close(log);
  unlink(out);
}

static const char *const words[] = {"arm", "slate", "rewards", "propensity", "propensities", "probabilities", "evaluated", "context", "marginals", "reward_range", "positions", "arms", "time", "user", "item_id",
                                    "click", "user_feature_", "user-item_affinity_", "item_feature_", "nan", "1e-300", "1e999", "-1", "1.0000001", "999999", "\\u0000", "\\ud800", "\xED\xA0\x80", "[[", "{}", "null",
                                    "true", "\n", "\r\n", ",", "\"\"", NULL};
const fuzz_target fuzz = {make_seeds, one, NULL, words};
