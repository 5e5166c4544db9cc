/* status.c - is it alive, is it ready, and what it has done: Prometheus text. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "inside.h"

#define N_BUCKETS 14
static const double buckets_ms[N_BUCKETS] = {0.25, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000};

void latency_count(http_thread *t, double ms) {
  size_t b = 0;
  while (b < N_BUCKETS && ms > buckets_ms[b]) b++;
  atomic_fetch_add_explicit(&t->n.latency[b], 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&t->n.latency_us, (uint64_t)(ms * 1000), memory_order_relaxed);
}

uint64_t counted(const front *f, size_t offset) {
  uint64_t sum = 0;
  for (size_t i = 0; i < f->n_threads; i++)
    sum += atomic_load_explicit((_Atomic uint64_t *)(void *)((char *)(uintptr_t)&f->threads[i].n + offset), memory_order_relaxed);
  return sum;
}
#define SUM(field) counted(f, offsetof(counters, field))

static void put(ev_buf *b, const char *name, const char *kind, const char *help, double value) {
  ev_buf_printf(b, "# HELP evection_%s %s\n# TYPE evection_%s %s\nevection_%s %.15g\n", name, help, name, kind, name, value);
}

static void metrics(call *c) {
  front *f = call_front(c);
  board *p = f->b;
  ev_buf *b = &c->response;
  scribe_stats s;
  size_t n_users, n_events, bytes = users_bytes(f->users, &n_users, &n_events), outstanding = 0;
  scribe_stat(f->scribe, &s);
  for (size_t i = 0; i < f->n_threads; i++) outstanding += dispatch_outstanding(&f->threads[i]);
  const struct {
    const char *name, *help;
    uint64_t value;
  } sums[] = {{"requests", "HTTP requests answered", SUM(requests)}, {"errors", "responses with status 400 or above", SUM(errors)},
              {"refused", "requests beyond their client's rate", SUM(refused)}, {"slates", "slates answered", SUM(slates)},
              {"degraded", "slates that were not the version's whole work", SUM(degraded)}, {"fallbacks", "slates of popular items only", SUM(fallbacks)},
              {"second_tries", "requests that went on to the version behind", SUM(second_tries)}, {"events", "events kept", SUM(events)},
              {"unlearned", "events that agents did not learn of", SUM(unlearned)}, {"impressions", "slates handed to the ledger", SUM(impressions)},
              {"impressions_lost", "slates that its ring had no room for", SUM(impressions_lost)}, {"worker_deaths", "script workers that died", atomic_load(&p->deaths)},
              {"takeovers", "workers that took a dead one's place", atomic_load(&p->takeovers)}, {"late", "requests that passed their deadline", atomic_load(&p->late)},
              {"reloads", "versions published after the first", atomic_load(&p->reloads)}, {"failed_reloads", "versions that were not taken", atomic_load(&p->failed_reloads)},
              {"quarantined", "versions taken out of service for their strikes", atomic_load(&p->quarantined)},
              {"ledger_commits", "commits of the ledger's writer", s.commits}, {"ledger_failures", "commits that failed", s.failures}};
  for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
    char name[64];
    snprintf(name, sizeof name, "%s_total", sums[i].name);
    put(b, name, "counter", sums[i].help, (double)sums[i].value);
  }
  put(b, "takeover_ms_max", "gauge", "longest time from a worker's death to the next one's start", (double)atomic_load(&p->takeover_ns_max) * 1e-6);
  size_t n_workers, n_confined = board_confined(p, &n_workers);
  put(b, "workers", "gauge", "script workers", (double)n_workers);
  put(b, "workers_confined", "gauge", "of these, under a system-call filter", (double)n_confined);
  put(b, "outstanding", "gauge", "requests on the board", (double)outstanding);
  put(b, "ledger_waiting_bytes", "gauge", "rows on their way to the ledger", (double)s.waiting_bytes);
  put(b, "live_users", "gauge", "users with events since the snapshot", (double)n_users);
  put(b, "live_events", "gauge", "their events", (double)n_events);
  put(b, "live_bytes", "gauge", "memory for them", (double)bytes);
  ev_buf_printf(b, "# HELP evection_recommend_ms time to a slate\n# TYPE evection_recommend_ms histogram\n");
  uint64_t sum = 0;
  for (size_t i = 0; i <= N_BUCKETS; i++) {
    sum += counted(f, offsetof(counters, latency) + i * sizeof(uint64_t));
    if (i < N_BUCKETS) ev_buf_printf(b, "evection_recommend_ms_bucket{le=\"%g\"} %llu\n", buckets_ms[i], (unsigned long long)sum);
    else ev_buf_printf(b, "evection_recommend_ms_bucket{le=\"+Inf\"} %llu\n", (unsigned long long)sum);
  }
  ev_buf_printf(b, "evection_recommend_ms_sum %.15g\nevection_recommend_ms_count %llu\n", (double)SUM(latency_us) * 1e-3, (unsigned long long)sum);
  call_text(c, 200, "text/plain; version=0.0.4", NULL, 0);
}

static void alive(call *c) { call_json(c, 200, json_pack("{s:b}", "alive", 1)); }

static void is_ready(call *c) {
  const board *b = call_front(c)->b;
  if (atomic_load(&b->champion) == 0) call_error(c, 503, "no version is live");
  else if (atomic_load(&b->stopping) != 0) call_error(c, 503, "the service is stopping");
  else call_json(c, 200, json_pack("{s:b}", "ready", 1));
}

const route status_routes[] = {
    {"GET", "/healthz", ROLE_NONE, alive, false},
    {"GET", "/readyz", ROLE_NONE, is_ready, false},
    {"GET", "/metrics", ROLE_READ, metrics, false},
    {NULL, NULL, ROLE_NONE, NULL, false},
};
