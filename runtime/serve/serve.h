/* serve.h - a composition behind HTTP, in several processes that may each die.
 *
 *   supervisor ─┬─ front    HTTP threads; never runs Lua; answers every request, if need be with popular items
 *               ├─ scribe   writes the ledger; an event is acknowledged when it is on disk
 *               └─ teams    one version of the composition each ─── script workers, killed at their deadline and replaced
 *
 * They share memory (inside.h, "Board"); no lock is shared with a worker. The version in service is the champion; the one before
 * it stays warm as the reserve, which answers what the champion fails at and takes over when it is rolled back; a challenger gets a
 * share of the users. Files that a version was made of are watched; an edit is staged as a new version beside the others. */
#ifndef EV_SERVE_H
#define EV_SERVE_H

#include "../core/core.h"

typedef struct ev_serve_options {
  const char *home;          /* of snapshots, artifacts, versions, ledger, state, control.sock */
  const char *composition;   /* file, or agent:NAME */
  const char *data;          /* name of the data set */
  const char *snapshot_path;
  const char *host;          /* address to listen on, unless a socket is handed over (LISTEN_FDS) */
  uint16_t port;             /* 0: any */
  int workers;               /* of the champion, 1 … 16 */
  int http_threads;          /* 1 … 16 */
  int deadline_ms;           /* of one recommendation */
  int strikes;               /* after which a version is quarantined */
  int snapshot_s;            /* between two snapshots of learning state; 0: 60 */
  int heap_mb;               /* of Lua in a worker; 0: no cap */
  const char *user;          /* whom the service becomes once it listens; NULL: nobody else */
  const char *tokens;        /* file; NULL: none */
  double rate_per_s, burst;  /* requests of one client; 0: no limit */
  const char *gate;          /* JSON: what a version must show, or NULL: the defaults */
  uint64_t seed;
  bool no_impressions;       /* slates are not logged */
  bool json;                 /* where it listens, as one JSON document on standard output */
} ev_serve_options;

/* Until SIGTERM or SIGINT; what was taken is answered and written first. SIGHUP loads the composition again. */
ev_status ev_serve(const ev_serve_options *o);

#endif
