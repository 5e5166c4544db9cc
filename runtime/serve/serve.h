/* serve.h - a composition behind HTTP.
 *
 * One process, the front, owns every connection and never runs Lua; script workers are forked from it and answer one
 * request at a time over a socket. A worker that dies or passes its deadline is replaced and its request answered with
 * the fallback: popular items the user has not seen. Files that the running version was made of are watched; an edit is
 * loaded by new workers beside the old ones, published when it is ready, and dropped with its reason when it is not.
 *
 * The front has one thread beside that of the ledger's writer, which holds nothing that a forked child needs; it returns when SIGTERM or SIGINT has drained it. */
#ifndef EV_SERVE_H
#define EV_SERVE_H

#include "../core/core.h"

typedef struct ev_serve_options {
  const char *home;          /* of snapshots, artifacts, ledger, state */
  const char *composition;   /* file, or agent:NAME */
  const char *data;          /* name of the data set */
  const char *snapshot_path;
  const char *host;          /* address to listen on */
  uint16_t port;             /* 0: any */
  int workers;
  int deadline_ms;           /* of one recommendation */
  uint64_t seed;
  bool no_impressions;       /* slates are not logged */
  bool json;                 /* where it listens, as one JSON document on standard output */
} ev_serve_options;

ev_status ev_serve(const ev_serve_options *o);

#endif
