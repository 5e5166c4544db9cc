/* jobs.h - evaluations in processes of their own.
 *
 * A job runs in a forked child with limits and a deadline; what it computes comes back through a pipe. A child that
 * crashes, hangs, allocates without end or writes nonsense costs its own job an error and nothing else. The caller
 * must have one thread while jobs run (the pool of core.h does not count: a child gets its own). Children die with
 * their parent, however it ends. */
#ifndef EV_JOBS_H
#define EV_JOBS_H

#include "../core/core.h"
#include "../script/script.h"

typedef struct ev_job_limits {
  double timeout_s;         /* wall clock; 0 = none */
  uint64_t max_memory_bytes; /* private memory (RLIMIT_DATA); 0 = none */
  size_t max_result_bytes;  /* default 64 MiB when 0 */
  int threads;              /* of ev_parallel_for in a child; default 1 when 0 */
} ev_job_limits;

typedef struct ev_job_result {
  size_t job;
  ev_status status;      /* EV_ELIMIT: timed out or over memory; EV_ESCRIPT, …: what the job returned */
  const char *data;      /* the result, or the error message; NUL-terminated; borrowed during the call */
  size_t len;
  double seconds;
  uint64_t peak_rss_bytes;
} ev_job_result;

typedef ev_status ev_job_fn(void *ctx, size_t job, ev_buf *out);                 /* in the child */
typedef ev_status ev_job_done_fn(void *ctx, const ev_job_result *result);        /* in the parent, as jobs end */

/* Runs jobs 0 … n−1, at most `workers` at once, started in order. Returns EV_EINTR after ev_interrupt (children are
 * killed first), the status of a `done` that failed, or EV_OK, whatever became of the single jobs. */
ev_status ev_jobs_run(size_t n, int workers, const ev_job_limits *limits, ev_job_fn *run, ev_job_done_fn *done, void *ctx);

/* Adds native.jobs_run{ module, fn, args, workers, timeout_s, max_memory_mb, on_done } to a host: job i calls
 * require(module)[fn](args[i]) in a fresh host; on_done(i, ok, result or message, seconds, peak_rss_mb). */
ev_status ev_jobs_bind(ev_host *h);

#endif
