/* versions.c - which version is what: staged, on trial, in service, in reserve, in quarantine.
 *
 *   stage → a team loads it → ready → workers → published: champion; the one before is the reserve, still warm
 *                                              → canary: challenger, until it is promoted or rolled back
 * Rolling back to the reserve changes one number on the board. What was done is written to the ledger, and the champion's name to
 * home/versions/DATA.champion: a start whose composition cannot be loaded serves that one. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inside.h"

#define LISTED_MAX 100
#define MESSAGE_MAX (1u << 20)
#define AGAIN_NS 2000000000u /* with no version at all, until the next try */

const char *const member_state_names[] = {"", "staging", "staged", "champion", "challenger", "reserve", "leaving"};

static uint32_t index_of(const supervisor *s, const member *m) { return (uint32_t)(m - s->members); }

member *member_in(supervisor *s, member_state state) {
  for (size_t i = 0; i < TEAMS_MAX; i++)
    if (s->members[i].state == state) return &s->members[i];
  return NULL;
}

member *member_of(supervisor *s, const char *version) { /* a whole name, or its beginning (at least 6) */
  size_t n = version != NULL ? strlen(version) : 0;
  for (size_t i = 0; i < TEAMS_MAX && n >= 6; i++) {
    member *m = &s->members[i];
    if (m->state > MEMBER_STAGING && m->state < MEMBER_LEAVING && strncmp(m->version, version, n) == 0) return m;
  }
  return NULL;
}

/* ---- Words to the front ----------------------------------------------------------------------------------*/
static bool tell(const supervisor *s, json_t *message) {
  char *text = message != NULL ? json_dumps(message, JSON_COMPACT) : NULL;
  json_decref(message);
  size_t len = text != NULL ? strlen(text) : 0;
  bool told = s->control >= 0 && len > 0 && len <= MESSAGE_MAX && send(s->control, text, len, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
  if (!told) ev_log(EV_LOG_WARN, "the front did not take a message of %zu bytes: %s", len, len > MESSAGE_MAX ? "too long" : strerror(errno));
  free(text);
  return told;
}

void control_tell(supervisor *s, json_t *message) { tell(s, message); }

void control_reply(supervisor *s, json_int_t ticket, int code, json_t *body) {
  if (ticket < 0) json_decref(body);
  else if (!tell(s, json_pack("{s:I, s:i, s:o}", "ticket", ticket, "code", code, "body", body != NULL ? body : json_object()))) /* a long one may not fit; somebody waits */
    tell(s, json_pack("{s:I, s:i, s:{s:s}}", "ticket", ticket, "code", code < 400 ? 500 : code, "body", "error", "it was done, but what there is to say of it is too long"));
}

static void let_go(supervisor *s, member *m, int code, const char *why) { /* nobody waits for it any more */
  json_int_t ticket = m->ticket;
  m->ticket = -1;
  if (ticket >= 0) control_refuse(s, ticket, code, why);
}

void member_owe(supervisor *s, member *m, json_int_t ticket) {
  if (m->ticket != ticket) let_go(s, m, 409, "a later command about this version took the place of this one");
  m->ticket = ticket;
}

void control_refuse(supervisor *s, json_int_t ticket, int code, const char *why) { control_reply(s, ticket, code, json_pack("{s:s}", "error", why)); }

static void record(supervisor *s, const member *m, const member *against, const char *action, const char *reason, const json_t *evidence, double share,
                   bool ends_canary) {
  char *text = evidence != NULL ? json_dumps(evidence, JSON_COMPACT) : NULL;
  promotion p = {m->version, against != NULL ? against->version : NULL, action, reason, text, share, ends_canary};
  if (scribe_promote(s->scribe, (size_t)s->o->http_threads, &p) != EV_OK) ev_log(EV_LOG_ERROR, "%s of %.12s was not recorded: %s", action, m->version, ev_error());
  free(text);
}

/* ---- Files beside ----------------------------------------------------------------------------------------*/
void version_path(const supervisor *s, char out[4096], const char *name, const char *suffix) {
  snprintf(out, 4096, "%s/versions/%s%s", s->o->home, name, suffix);
}

bool version_quarantined(const supervisor *s, const char *version) {
  char path[4096];
  version_path(s, path, version, "/quarantined");
  return ev_file_exists(path);
}

static void keep_file(const char *path, const char *text) {
  ev_writer *w;
  ev_status status = ev_writer_open(&w, path);
  if (status == EV_OK) {
    status = ev_writer_write(w, text, strlen(text));
    if (status == EV_OK) status = ev_writer_commit(w);
    else ev_writer_abort(w);
  }
  if (status != EV_OK) ev_log(EV_LOG_ERROR, "%s", ev_error());
}

static void keep_champion(const supervisor *s, const member *m) {
  char path[4096];
  version_path(s, path, s->o->data, ".champion");
  keep_file(path, m->version);
}

static bool kept_champion(const supervisor *s, char version[65]) {
  char path[4096];
  ev_buf text = {0};
  version_path(s, path, s->o->data, ".champion");
  bool there = ev_file_exists(path) && ev_file_read(&text, path, 64) == EV_OK && text.len > 0;
  if (there) snprintf(version, 65, "%s", text.data);
  ev_buf_free(&text);
  return there && !version_quarantined(s, version);
}

static void canary_file(const supervisor *s, char path[4096], const char *suffix) { snprintf(path, 4096, "%s/canary.%s", s->o->home, suffix); }

static void forget_canary(const supervisor *s) {
  char path[4096];
  canary_file(s, path, "json");
  unlink(path);
  canary_file(s, path, "state");
  unlink(path);
}

static void canary_over(supervisor *s) {
  forget_canary(s);
  control_tell(s, json_pack("{s:s}", "notice", "canary over"));
}

void member_intend(member *m, const char *then, const char *reason) {
  snprintf(m->then, sizeof m->then, "%s", then);
  snprintf(m->reason, sizeof m->reason, "%s", reason);
}

/* ---- Teams ------------------------------------------------------------------------------------------------*/
static void clear(member *m) {
  if (m->report >= 0) close(m->report);
  json_decref(m->options);
  json_decref(m->said);
  *m = (member){.report = -1, .ticket = -1};
}

static void retire(supervisor *s, member *m) {
  if (m == NULL || m->state == MEMBER_NONE || m->state == MEMBER_LEAVING) return;
  uint32_t i = index_of(s, m);
  bool working = m->state != MEMBER_STAGING && m->pid != 0;
  let_go(s, m, 503, "this version had to make room for another");
  m->state = MEMBER_LEAVING;
  if (atomic_load(&s->b->reserve) == i + 1) atomic_store(&s->b->reserve, 0);
  if (atomic_load(&s->b->challenger) == i + 1) atomic_store(&s->b->challenger, 0);
  if (working) {
    atomic_store(&s->b->teams[i].state, TEAM_LEAVING);
    bell_ring(s->bells.team[i]);
  } else if (m->pid != 0) {
    kill(m->pid, SIGKILL);
  }
}

static bool place_free(const supervisor *s, uint32_t i) {
  if (s->members[i].state != MEMBER_NONE || atomic_load(&s->b->teams[i].state) != TEAM_FREE) return false;
  for (uint32_t k = 0; k < TEAM_SEATS; k++)
    if (atomic_load(&s->b->seats[i * TEAM_SEATS + k].state) != SEAT_FREE) return false;
  return true;
}

static member *free_place(supervisor *s) {
  for (uint32_t i = 0; i < TEAMS_MAX; i++)
    if (place_free(s, i)) return &s->members[i];
  return NULL;
}

void member_order(member *m, int n) {
  char text[64];
  snprintf(text, sizeof text, "{\"workers\":%d}", n);
  if (send(m->report, text, strlen(text), MSG_NOSIGNAL) < 0) ev_log(EV_LOG_ERROR, "version %.12s: %s", m->version, strerror(errno));
  m->ordered = true;
}

static ev_status start_team(supervisor *s, member *m, const json_t *args) {
  int pair[2], size = 2 * MESSAGE_MAX;
  char *text = json_dumps(args, JSON_COMPACT);
  if (text == NULL) return ev_fail(EV_ENOMEM, "out of memory");
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    free(text);
    return ev_fail_errno("cannot make a socket pair");
  }
  for (int i = 0; i < 2; i++) setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  uint32_t i = index_of(s, m);
  atomic_store(&s->b->teams[i].state, TEAM_LOADING);
  atomic_fetch_add(&s->b->teams[i].used, 1);
  fflush(NULL);
  pid_t parent = getpid(), pid = fork();
  if (pid == 0) {
    for (size_t k = 0; k < s->sockets.n_http; k++) close(s->sockets.http[k]);
    if (s->sockets.admin >= 0) close(s->sockets.admin);
    if (s->control >= 0) close(s->control);
    for (size_t k = 0; k < TEAMS_MAX; k++)
      if (s->members[k].report >= 0) close(s->members[k].report);
    close(pair[0]);
    close(s->epoll);
    close(s->signals);
    close(watch_fd(s->watch));
    scribe_free(s->scribe); /* what runs scripts has no business with the ledger's rings */
    process_begin("ev-team", parent, true);
    team_run(s->o, s->b, &s->bells, i, text, pair[1]);
  }
  free(text);
  close(pair[1]);
  if (pid < 0) {
    close(pair[0]);
    atomic_store(&s->b->teams[i].state, TEAM_FREE);
    return ev_fail_errno("cannot start a team");
  }
  m->pid = pid;
  m->report = pair[0];
  struct epoll_event e = {.events = EPOLLIN, .data.fd = pair[0]};
  if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, pair[0], &e) != 0) kill(pid, SIGKILL); /* nobody would hear it: its end is that of one that died */
  return EV_OK;
}

ev_status versions_stage(supervisor *s, const char *source, const char *then, const json_t *command, json_int_t ticket, const char *reason) {
  member *m = NULL, *champion = member_in(s, MEMBER_CHAMPION);
  bool of_file = member_of(s, source) == NULL && strlen(source) != 64;
  for (size_t i = 0; i < TEAMS_MAX; i++) /* an edit while the last one is loaded: start again */
    if (ticket < 0 && s->members[i].state == MEMBER_STAGING && s->members[i].ticket < 0 && strcmp(s->members[i].source, source) == 0) retire(s, &s->members[i]);
  m = free_place(s);
  if (m == NULL) {
    retire(s, member_in(s, MEMBER_STAGED));
    return ev_fail(EV_ELIMIT, "%d versions are loaded or leaving: try again in a moment", TEAMS_MAX);
  }
  clear(m);
  m->state = MEMBER_STAGING;
  m->ticket = ticket;
  m->of_file = of_file;
  snprintf(m->source, sizeof m->source, "%s", source);
  member_intend(m, then, reason);
  m->options = json_incref(json_object_get(command, "options"));
  json_t *gate = json_object_get(command, "gate");
  json_t *own = gate == NULL && s->o->gate != NULL ? json_loads(s->o->gate, 0, NULL) : NULL;
  int patience_ms = 20 * s->o->deadline_ms < 2000 ? 2000 : 20 * s->o->deadline_ms; /* for the first slate of all */
  json_t *args = json_pack("{s:s, s:s, s:I, s:i, s:i, s:b}", "composition", source, "data", s->o->data, "seed", (json_int_t)s->o->seed, "deadline_ms",
                           s->o->deadline_ms, "watchdog_ms", patience_ms, "drop_state", json_is_true(json_object_get(command, "drop_state")));
  if (args == NULL) return ev_fail(EV_ENOMEM, "out of memory");
  if (champion != NULL) json_object_set_new(args, "champion", json_string(champion->version));
  if (gate != NULL || own != NULL) json_object_set(args, "gate", gate != NULL ? gate : own);
  json_decref(own);
  ev_status status = start_team(s, m, args);
  json_decref(args);
  if (status != EV_OK) clear(m);
  return status;
}

/* ---- What is done with one that is ready --------------------------------------------------------------------*/
json_t *member_describe(const member *m) {
  json_t *o = json_pack("{s:s, s:s, s:s, s:I}", "version", m->version, "state", member_state_names[m->state], "source", m->source, "since_ms", (json_int_t)m->since_ms);
  if (o != NULL && m->said != NULL) json_object_update_missing(o, m->said);
  return o;
}

static void set_state(member *m, member_state state) {
  m->state = state;
  m->since_ms = ev_wall_ms();
}

static void announce(supervisor *s, const member *m) {
  const ev_serve_options *o = s->o;
  if (!s->told && o->json) {
    json_t *document = json_pack("{s:s, s:s, s:s, s:i}", "composition", o->composition, "version", m->version, "host", o->host, "port", s->sockets.port);
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
    putchar('\n');
    json_decref(document);
  } else if (o->json) {
    ev_log(EV_LOG_INFO, "version %.12s is live", m->version);
  } else if (!s->told) {
    printf("serving %s version %.12s on http://%s:%u\n", o->composition, m->version, o->host, s->sockets.port);
  } else {
    printf("version %.12s is live\n", m->version);
  }
  fflush(stdout);
  if (!s->told) notify_system("READY=1");
  s->told = true;
}

/* The champion from now on: each request that comes takes this version, those under way end in theirs. */
void member_publish(supervisor *s, member *m, const char *action, const char *reason, const json_t *evidence) {
  member *before = member_in(s, MEMBER_CHAMPION), *reserve = member_in(s, MEMBER_RESERVE);
  bool was_challenger = m->state == MEMBER_CHALLENGER;
  uint32_t i = index_of(s, m);
  if (before == m) return;
  atomic_store(&s->b->teams[i].strikes, 0);
  if (was_challenger) atomic_store(&s->b->challenger, 0);
  if (reserve != NULL && reserve != m) retire(s, reserve);
  atomic_store(&s->b->reserve, before != NULL ? index_of(s, before) + 1 : 0);
  atomic_store(&s->b->champion, i + 1);
  atomic_store(&s->b->since_ms, (uint64_t)ev_wall_ms());
  if (before != NULL) {
    set_state(before, MEMBER_RESERVE);
    atomic_fetch_add(&s->b->reloads, 1);
  }
  set_state(m, MEMBER_CHAMPION);
  if (m->pid != 0) member_order(m, s->o->workers); /* of a canary there are fewer; more come while the first ones serve */
  if (m->of_file) {
    snprintf(s->source, sizeof s->source, "%s", m->source);
    watch_files(s->watch, json_object_get(m->said, "files"));
    board_set_error(s->b, "");
  }
  keep_champion(s, m);
  if (was_challenger) canary_over(s);
  record(s, m, before, action, reason, evidence, (double)NAN, was_challenger);
  announce(s, m);
}

void member_end_canary(supervisor *s, member *m, const char *reason, const json_t *evidence) {
  atomic_store(&s->b->challenger, 0);
  canary_over(s);
  record(s, m, member_in(s, MEMBER_CHAMPION), "rollback", reason, evidence, (double)NAN, true);
  ev_log(EV_LOG_INFO, "canary of %.12s is over: %s", m->version, reason);
  retire(s, m);
}

static void start_canary(supervisor *s, member *m) {
  member *champion = member_in(s, MEMBER_CHAMPION), *other = member_in(s, MEMBER_CHALLENGER);
  char path[4096];
  if (other != NULL && other != m) member_end_canary(s, other, "another challenger took its place", NULL);
  double share = json_number_or(m->options, "share", 0.1);
  uint64_t salt = ev_checksum(m->version, strlen(m->version)), bits;
  memcpy(&bits, &share, sizeof bits);
  json_t *options = m->options != NULL ? json_deep_copy(m->options) : json_object();
  json_object_set_new(options, "share", json_real(share));
  json_object_set_new(options, "salt", json_integer((json_int_t)(salt >> 1)));
  json_object_set_new(options, "challenger", json_string(m->version));
  json_object_set_new(options, "champion", json_string(champion->version));
  char *text = json_dumps(options, JSON_COMPACT);
  canary_file(s, path, "json");
  if (text != NULL) keep_file(path, text);
  free(text);
  control_tell(s, json_pack("{s:s, s:o}", "notice", "canary", "options", options));
  atomic_store(&s->b->salt, salt >> 1);
  atomic_store(&s->b->share_bits, bits);
  atomic_store(&s->b->teams[index_of(s, m)].strikes, 0);
  set_state(m, MEMBER_CHALLENGER);
  atomic_store(&s->b->challenger, index_of(s, m) + 1);
  record(s, m, champion, "canary", m->reason, NULL, share, false);
  ev_log(EV_LOG_INFO, "canary: %.12s gets %g %% of the users", m->version, 100 * share);
}

/* A canary that was going on when the service ended goes on. */
static void resume_canary(supervisor *s) {
  char path[4096];
  json_error_t error;
  canary_file(s, path, "json");
  json_t *options = ev_file_exists(path) ? json_load_file(path, 0, &error) : NULL;
  const char *version = json_string_value(json_object_get(options, "challenger")), *against = json_string_value(json_object_get(options, "champion"));
  const member *champion = member_in(s, MEMBER_CHAMPION);
  if (version != NULL && against != NULL && strcmp(against, champion->version) == 0 && !version_quarantined(s, version)) {
    json_t *command = json_pack("{s:O}", "options", options);
    if (versions_stage(s, version, "canary", command, -1, "goes on after a restart") != EV_OK) ev_log(EV_LOG_ERROR, "%s", ev_error());
    json_decref(command);
  } else if (options != NULL) {
    forget_canary(s);
  }
  json_decref(options);
}

static void carry_out(supervisor *s, member *m) { /* what `then` says; its workers are there */
  bool first = member_in(s, MEMBER_CHAMPION) == NULL;
  json_int_t ticket = m->ticket;
  m->ticket = -1;
  if (strcmp(m->then, "canary") == 0 && !first) start_canary(s, m);
  else member_publish(s, m, strcmp(m->reason, ROLLED_BACK) == 0 ? "rollback" : "promote", m->reason, json_object_get(m->said, "gate"));
  control_reply(s, ticket, 200, member_describe(m));
  if (first) resume_canary(s);
}

void member_go_on(supervisor *s, member *m) {
  if (m->ordered) carry_out(s, m);
  else member_order(m, strcmp(m->then, "canary") == 0 ? (s->o->workers + 1) / 2 : s->o->workers);
}

static void failed(supervisor *s, member *m, const char *why, int code) {
  bool of_file = m->of_file && m->ticket < 0;
  if (m->ticket >= 0) {
    control_refuse(s, m->ticket, code, why);
    m->ticket = -1;
  }
  ev_log(EV_LOG_ERROR, "%s; %s", why, member_in(s, MEMBER_CHAMPION) != NULL ? "the version before stays" : "nothing is served yet");
  atomic_fetch_add(&s->b->failed_reloads, 1);
  if (of_file || member_in(s, MEMBER_CHAMPION) == NULL) board_set_error(s->b, why);
  if (strcmp(m->then, "canary") == 0 && member_in(s, MEMBER_CHALLENGER) == NULL) canary_over(s); /* its challenger had died, and does not come back */
  char last[65];
  if (member_in(s, MEMBER_CHAMPION) != NULL) return;
  if (of_file && kept_champion(s, last) && versions_stage(s, last, "publish", NULL, -1, "the composition could not be loaded") == EV_OK) return;
  if (s->told) s->edited_ns = ev_now_ns() + AGAIN_NS; /* it has served: popular items until it does again */
  else s->failed = true;
}

static void ready(supervisor *s, member *m, json_t *said) {
  const char *version = json_string_value(json_object_get(said, "version"));
  const member *champion = member_in(s, MEMBER_CHAMPION);
  snprintf(m->version, sizeof m->version, "%s", version != NULL ? version : "");
  m->said = json_incref(said);
  m->of_file = json_array_size(json_object_get(said, "files")) > 0; /* of a version that was kept there is nothing to watch */
  set_state(m, MEMBER_STAGED);
  member *same = NULL;
  for (size_t i = 0; i < TEAMS_MAX; i++)
    if (&s->members[i] != m && s->members[i].state > MEMBER_STAGING && s->members[i].state < MEMBER_LEAVING && strcmp(s->members[i].version, m->version) == 0) same = &s->members[i];
  if (version_quarantined(s, m->version)) {
    failed(s, m, "this version is in quarantine: it has failed in service; change it, or delete its 'quarantined' file", 409);
    retire(s, m);
    return;
  }
  record(s, m, champion, "stage", m->reason, json_object_get(said, "gate"), (double)NAN, false);
  if (same != NULL) { /* it is loaded already: the new team is not needed */
    if (same == champion) {
      if (m->of_file) watch_files(s->watch, json_object_get(said, "files"));
      if (m->of_file && m->ticket < 0) board_set_error(s->b, "");
      control_reply(s, m->ticket, 200, member_describe(same));
      m->ticket = -1;
      retire(s, m);
      return;
    }
    member_owe(s, same, m->ticket);
    m->ticket = -1;
    member_intend(same, m->then, m->reason);
    same->of_file = same->of_file || m->of_file;
    if (m->of_file) snprintf(same->source, sizeof same->source, "%s", m->source);
    json_decref(same->options);
    same->options = json_incref(m->options);
    json_decref(same->said);
    same->said = json_incref(said);
    retire(s, m);
    m = same;
  }
  if (strcmp(m->then, "nothing") == 0) {
    control_reply(s, m->ticket, 200, member_describe(m));
    m->ticket = -1;
  } else {
    member_go_on(s, m);
  }
}

void versions_heard(supervisor *s, member *m) {
  static char text[2 * MESSAGE_MAX];
  ssize_t n = recv(m->report, text, sizeof text - 1, MSG_DONTWAIT);
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) epoll_ctl(s->epoll, EPOLL_CTL_DEL, m->report, NULL); /* its end is told by SIGCHLD */
    return;
  }
  json_t *said = json_loadb(text, (size_t)n, 0, NULL), *is_ready = json_object_get(said, "ready");
  const char *error = json_string_value(json_object_get(said, "error"));
  if (m->state == MEMBER_STAGING && is_ready != NULL) {
    ready(s, m, is_ready);
  } else if (m->state == MEMBER_STAGING && error != NULL) {
    json_int_t status = json_integer_value(json_object_get(said, "status"));
    failed(s, m, error, status == EV_ENOTFOUND ? 404 : status == EV_EINVAL || status == EV_ESCRIPT ? 422 : status == EV_EEXIST ? 409 : 500);
    m->state = MEMBER_LEAVING;
  } else if (json_object_get(said, "working") != NULL && m->state == MEMBER_STAGED) {
    carry_out(s, m);
  }
  json_decref(said);
}

void versions_ended(supervisor *s, member *m, int how) {
  member was = *m;
  uint32_t i = index_of(s, m);
  if (m->state == MEMBER_STAGING) {
    char why[256];
    if (WIFSIGNALED(how) && WTERMSIG(how) == SIGALRM) snprintf(why, sizeof why, "%.100s: the new version made no slate in time", m->source);
    else snprintf(why, sizeof why, "%.100s: its process died while it was loaded (%s)", m->source, WIFSIGNALED(how) ? strsignal(WTERMSIG(how)) : "exit");
    failed(s, m, why, 422);
  }
  let_go(s, m, 503, "this version's process died");
  atomic_store(&s->b->teams[i].state, TEAM_FREE);
  if (m->report >= 0) epoll_ctl(s->epoll, EPOLL_CTL_DEL, m->report, NULL);
  m->options = json_incref(was.options);
  clear(m);
  if (was.state == MEMBER_CHAMPION || was.state == MEMBER_CHALLENGER || was.state == MEMBER_RESERVE) {
    ev_log(EV_LOG_ERROR, "the %s's team died", member_state_names[was.state]);
    _Atomic uint32_t *place = was.state == MEMBER_CHAMPION ? &s->b->champion : was.state == MEMBER_CHALLENGER ? &s->b->challenger : &s->b->reserve;
    atomic_store(place, 0);
    member *reserve = member_in(s, MEMBER_RESERVE);
    if (was.state == MEMBER_CHAMPION && reserve != NULL) member_publish(s, reserve, "rollback", "the champion's process died", NULL);
    json_t *command = json_object();
    if (was.options != NULL) json_object_set(command, "options", was.options);
    if (was.state != MEMBER_RESERVE && versions_stage(s, was.version, was.state == MEMBER_CHALLENGER ? "canary" : "publish", command, -1, "its process had died") != EV_OK)
      ev_log(EV_LOG_ERROR, "%s", ev_error());
    json_decref(command);
    if (member_in(s, MEMBER_CHAMPION) == NULL && member_in(s, MEMBER_STAGING) == NULL) s->edited_ns = ev_now_ns() + AGAIN_NS;
  }
  json_decref(was.options);
}

void versions_strikes(supervisor *s) {
  uint32_t most = atomic_load(&s->b->strikes_max);
  for (size_t i = 0; i < TEAMS_MAX; i++) {
    member *m = &s->members[i];
    if ((m->state != MEMBER_CHAMPION && m->state != MEMBER_CHALLENGER) || atomic_load(&s->b->teams[i].strikes) < most) continue;
    char path[4096], reason[128];
    member *reserve = member_in(s, MEMBER_RESERVE);
    if (m->state == MEMBER_CHAMPION && reserve == NULL) continue; /* there is nothing better to serve */
    snprintf(reason, sizeof reason, "quarantined after %u strikes", atomic_load(&s->b->teams[i].strikes));
    version_path(s, path, m->version, "/quarantined");
    keep_file(path, reason);
    atomic_fetch_add(&s->b->quarantined, 1);
    ev_log(EV_LOG_ERROR, "version %.12s: %s", m->version, reason);
    if (m->state == MEMBER_CHALLENGER) {
      member_end_canary(s, m, reason, NULL);
    } else {
      member_publish(s, reserve, "rollback", reason, NULL);
      retire(s, m);
    }
    board_set_error(s->b, reason);
  }
}

void versions_edited(supervisor *s) {
  ev_status status = versions_stage(s, s->source, "publish", NULL, -1, "its files were edited");
  if (status == EV_ELIMIT) {
    s->edited_ns = ev_now_ns(); /* in a moment again */
  } else if (status != EV_OK) {
    board_set_error(s->b, ev_error());
    ev_log(EV_LOG_ERROR, "%s", ev_error());
  }
}

void versions_stop(supervisor *s) {
  for (size_t i = 0; i < TEAMS_MAX; i++) let_go(s, &s->members[i], 503, "the service is stopping");
  for (size_t i = 0; i < json_array_size(s->pending); i++) {
    const json_t *ticket = json_object_get(json_array_get(s->pending, i), "ticket");
    if (json_is_integer(ticket)) control_refuse(s, json_integer_value(ticket), 503, "the service is stopping");
  }
  json_decref(s->pending);
  s->pending = NULL;
}
