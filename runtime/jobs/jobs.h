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
  const char *confine_to;   /* children are confined (EV_CONFINE_EVALUATE) and write below this folder only; NULL: they are not */
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

/* Adds native.jobs_run{ module, fn, args, workers, timeout_s, max_memory_mb, confined, on_done } to a host: job i calls
 * require(module)[fn](args[i]) in a fresh host; on_done(i, ok, result or message, seconds, peak_rss_mb). confined: to the host's home. */
ev_status ev_jobs_bind(ev_host *h);

/* ---- Confinement ------------------------------------------------------------------------------------------
 * What a process may still ask of the kernel, whatever its memory holds: a system-call filter (seccomp) and, where the kernel has it,
 * Landlock. Both last for its life, and hold for all that it forks. docs/reference/isolation.md lists the calls.
 *
 *   SERVE     a script worker: memory, clocks, its timer, futexes, reading and writing of descriptors that are open. No file, no
 *             process, no thread, no descriptor of any kind is ever opened; by limits (no descriptor, no core; no process, unless it
 *             is root's), too, which hold where there is no filter.
 *   EVALUATE  an evaluation, a fit: also threads, reading files, writing below one folder.
 *   LOAD      a version's team, which maps and warms it and forks the workers: also processes, and signals to them.
 *
 * Nowhere: programs (execve), sockets, other processes' memory, mounts, namespaces, identities, modules, keys, bpf, io_uring, perf.
 * Of these most kill the process (SIGSYS); what libraries ask for in good faith, and could do without, is refused (EPERM).
 * PROT_EXEC is allowed: LuaJIT makes machine code. That code is under the same filter. */
typedef enum ev_confine_kind { EV_CONFINE_SERVE, EV_CONFINE_EVALUATE, EV_CONFINE_LOAD } ev_confine_kind;
#define EV_CONFINED_CALLS 1u /* the filter is on */
#define EV_CONFINED_FILES 2u /* Landlock is on */
/* @param writable the folder, which must exist; NULL: none. SERVE ignores it.
 * @param[out] held what is on, EV_CONFINED_…; may be NULL
 * EV_OK: the filter is on, with Landlock or without. EV_EIO: this machine (a container, as a rule) lets nobody set a filter: the
 * process goes on without. */
ev_status ev_confine(ev_confine_kind kind, const char *writable, unsigned *held);
/* Closes every descriptor but 2 and those of keep; 0 and 1 become /dev/null. Before ev_confine. */
void ev_confine_descriptors(const int *keep, size_t n_keep);

#endif
