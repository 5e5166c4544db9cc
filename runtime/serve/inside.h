/* inside.h - the parts of the front; private to this room.
 *
 *   users.c   who is known: histories from the snapshot and from events, and the fallback slate
 *   fleet.c   generations of script workers: start, hand over, deadlines, replacement
 *   events.c  the body of POST /events → checked events
 *   front.c   the event loop and HTTP */
#ifndef EV_SERVE_INSIDE_H
#define EV_SERVE_INSIDE_H

#include <jansson.h>

#include "../reward/reward.h"
#include "../script/script.h"
#include "../store/store.h"
#include "serve.h"

#define HISTORY_MAX 1000 /* the latest items of a user that a request carries */
#define SLATE_MAX 500

/* ---- Users ---------------------------------------------------------------------------------------------*/
typedef struct users users;
ev_status users_open(users **out, const ev_snapshot *s);
void users_close(users *u);
ev_status users_add(users *u, const char *user, uint32_t item); /* an event: the user may be new */
/* A user's items, oldest first, snapshot and events together; *items is owned by the caller. */
ev_status users_history(const users *u, const char *user, uint32_t **items, size_t *n);
/* {"user", "history", "seen", "n"} for a worker. */
json_t *users_request(const users *u, const char *user, size_t n);
/* The n most popular items that the user has not seen, as a response's "items". */
json_t *users_fallback(const users *u, const char *user, size_t n);

/* ---- Events --------------------------------------------------------------------------------------------*/
typedef struct parsed_events {
  ev_event *events; /* strings borrowed from document */
  uint32_t *items;  /* snapshot index of each */
  size_t n;
  json_t *document;
} parsed_events;
/* One object or an array; all or none. EV_EINVAL names the event and its field. */
ev_status events_parse(parsed_events *out, const char *body, size_t len, const ev_snapshot *s);
void events_free(parsed_events *e);
const char *item_title(const ev_snapshot *s, uint32_t item, ev_buf *scratch); /* a title column's text, or NULL */

/* ---- Fleet ---------------------------------------------------------------------------------------------*/
typedef struct request request; /* of front.c */
typedef struct fleet fleet;
typedef struct fleet_hooks {
  void *ctx;
  void (*answer)(void *ctx, request *r, const char *json, size_t len, const char *version); /* json NULL: the fallback */
  void (*in_child)(void *ctx);                                                              /* closes what the child must not hold */
  void (*published)(void *ctx, const char *version);
} fleet_hooks;
typedef struct fleet_counts {
  uint64_t deaths, late, reloads, failed_reloads;
} fleet_counts;

ev_status fleet_open(fleet **out, const ev_serve_options *o, int epoll_fd, const fleet_hooks *hooks);
void fleet_close(fleet *f);                        /* ends every worker */
ev_status fleet_load(fleet *f);                    /* a new generation; published when it is ready */
ev_status fleet_submit(fleet *f, request *r, char *message); /* takes the message; r NULL: nobody waits for the answer */
bool fleet_event(fleet *f, int fd);                /* a worker's socket is ready; false: the fd is none of the fleet's */
bool fleet_watches(const fleet *f, int fd);        /* the fd is the watch on edited files */
void fleet_edited(fleet *f);                       /* reads the watch */
int fleet_tick(fleet *f);                          /* deadlines and debouncing; milliseconds to the next, or -1 */
const char *fleet_version(const fleet *f);         /* "" while none is live */
const char *fleet_error(const fleet *f);           /* why the last edit was not taken; "" when it was */
size_t fleet_waiting(const fleet *f);              /* requests not answered */
int fleet_generation(const fleet *f);
const fleet_counts *fleet_count(const fleet *f);

#endif
