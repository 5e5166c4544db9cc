/* client.h - asking a running service; private to this room. */
#ifndef EV_CLI_CLIENT_H
#define EV_CLI_CLIENT_H

#include "cli.h"

#define EV_CLIENT_OPTIONS \
  {EV_OPT_STRING, "url", "URL", "the service, such as http://127.0.0.1:8080 (default: the socket control.sock in the home)"}, \
  {EV_OPT_STRING, "token", "TOKEN", "what the service wants to see (default $EVECTION_TOKEN)"}
/* Of a canary: what opts say of these goes into "options". */
#define EV_CANARY_OPTIONS \
  {EV_OPT_REAL, "share", "X", "share of the users that get the challenger (default 0.1)"}, \
  {EV_OPT_REAL, "margin", "X", "promote when the reward is better by more than this (default 0)"}, \
  {EV_OPT_REAL, "harm", "X", "roll back when it is worse by more than this (default 0)"}, \
  {EV_OPT_REAL, "low", "X", "the least that a slate can earn (default 0)"}, \
  {EV_OPT_REAL, "high", "X", "the most that a slate can earn (default 1)"}, \
  {EV_OPT_REAL, "confidence", "X", "1 - the probability of promoting what is no better (default 0.95)"}, \
  {EV_OPT_REAL, "caution", "X", "1 - the probability of rolling back what does no harm (default 0.95)"}, \
  {EV_OPT_INT, "slates-per-user", "N", "slates after which a user counts (default 5)"}, \
  {EV_OPT_REAL, "settle-s", "S", "seconds that a slate has to earn something (default 30)"}, \
  {EV_OPT_REAL, "window-s", "S", "seconds after which a user counts anyway (default 1800)"}, \
  {EV_OPT_REAL, "errors-max", "X", "roll back at this share of degraded slates beyond the champion's"}, \
  {EV_OPT_REAL, "late-ms", "MS", "roll back when the p99 is above this"}, \
  {EV_OPT_FLAG, "manual", NULL, "only say what is to be done"}

/* METHOD PATH with a JSON body (taken; NULL: none) → the answer. `what` says on standard error how long it has been going on; NULL: it does
 * not. EV_EIO: nobody there, or the service failed; EV_EINVAL, EV_ENOTFOUND: as it says; EV_EINTR. */
ev_status ev_client_ask(const json_t *opts, const char *method, const char *path, json_t *body, const char *what, json_t **out);

/* The canary's options among opts; NULL: none was given. */
json_t *ev_client_canary_options(const json_t *opts);

/* What the service said of a version that was staged, for people; then: "nothing", "publish" or "canary". */
void ev_client_print_staged(const json_t *said, const char *then);

/* A version as people read it: the first 12 digits, "-" when there is none. out (16) */
const char *ev_client_short(char out[16], const json_t *version);

#endif
