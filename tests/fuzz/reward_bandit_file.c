/* reward_bandit_file.c (fuzz) - damaged mapped files of bandit logs: refused, or sound in everything that is read without asking. */
#include <math.h>
#include <string.h>

#include "driver.h"
#include "reward/reward.h"

static const char *input;

static void add(const char *text) {
  const char *from = fuzz_path("text"), *file = fuzz_path("file");
  ev_bandit_log *log;
  ev_buf b = {0};
  fuzz_write(from, text, strlen(text));
  FUZZ_REQUIRE(ev_bandit_log_read(&log, from, NULL, NULL) == EV_OK);
  FUZZ_REQUIRE(ev_bandit_log_write(log, file) == EV_OK && ev_file_read(&b, file, 1 << 20) == EV_OK);
  fuzz_seed(b.data, b.len);
  ev_bandit_log_close(log);
  ev_buf_free(&b);
}

static void make_seeds(void) {
  input = fuzz_path("input");
  add("{\"arms\":[\"a\",\"b\"],\"reward_range\":[0,1]}\n{\"context\":[1,2],\"arm\":\"a\",\"position\":2,\"reward\":1,\"propensity\":0.5,\"probabilities\":[0.5,0.5],\"evaluated\":[1,0],\"user\":1,\"time\":5}\n");
  add("{\"slate\":[1,2],\"rewards\":[0,1],\"propensities\":[0.5,1],\"marginals\":[0.5,0.5],\"evaluated\":[{\"1\":1},{\"2\":1}]}\n{\"slate\":[2],\"rewards\":[3],\"propensities\":[1],\"marginals\":[1],\"evaluated\":[{\"1\":1}]}\n");
  add("item_id,click,propensity_score,position,user_feature_0,user-item_affinity_0,user-item_affinity_1\n0,1,0.5,1,u,1,2\n1,0,0.25,2,v,0,1\n");
}

static void one(const uint8_t *data, size_t len) {
  ev_bandit_log *log;
  fuzz_write(input, data, len);
  ev_status status = ev_bandit_log_open(&log, input);
  if (status != EV_OK) {
    FUZZ_REQUIRE(status == EV_ECORRUPT || status == EV_ELIMIT);
    return;
  }
  fuzz_fence(log->pack, true);
  double sum = 0;
  for (size_t i = 0; i < log->n; i++) {
    for (size_t at = i * log->length; at < (i + 1) * log->length; at++) {
      if (log->arm[at] == EV_NONE) continue;
      FUZZ_REQUIRE(log->arm[at] < log->n_arms && log->propensity[at] > 0 && log->propensity[at] <= 1 && isfinite(log->reward[at]));
      const ev_bandit_probabilities *both[] = {&log->logged, &log->evaluated};
      for (int k = 0; k < 2; k++)
        for (uint64_t e = both[k]->ptr != NULL ? both[k]->ptr[at] : 0; both[k]->ptr != NULL && e < both[k]->ptr[at + 1]; e++) {
          FUZZ_REQUIRE(both[k]->arm[e] < log->n_arms);
          sum += both[k]->p[e];
        }
      if (log->marginal != NULL) sum += log->marginal[at];
    }
    if (log->position != NULL) FUZZ_REQUIRE(log->position[i] < log->n_positions);
    if (log->user != NULL) FUZZ_REQUIRE(log->user[i] < log->n_users);
    if (log->time_ms != NULL) sum += (double)log->time_ms[i];
    for (size_t c = 0; c < log->features.n_context; c++) FUZZ_REQUIRE(isfinite(log->features.context[i * log->features.n_context + c]));
    for (size_t a = 0; log->features.pair != NULL && a < log->n_arms; a++) FUZZ_REQUIRE(isfinite(log->features.pair[i * log->n_arms + a]));
  }
  for (size_t a = 0; a < log->n_arms && a < 100; a++) {
    uint32_t found = ev_bandit_log_arm(log, log->arms.bytes + log->arms.ptr[a], log->arms.ptr[a + 1] - log->arms.ptr[a]);
    FUZZ_REQUIRE(found <= a); /* names may come twice in a damaged file: then the first counts */
  }
  FUZZ_REQUIRE(sum == sum);
  fuzz_fence(log->pack, false);
  ev_bandit_log_close(log);
}

const fuzz_target fuzz = {make_seeds, one, fuzz_repair_pack, NULL};
