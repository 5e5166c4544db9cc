/* dispatch.c - requests over the board: slots, which worker, deadlines, what happens to those of a worker that died.
 *
 * A slot belongs to one thread for good. Boxes are filled, and the boxes of the dead emptied, under one lock that only front threads
 * share. A request that lies behind one that takes long is offered to an idle worker, too: whoever moves its slot first has it. */
#include <errno.h>
#include <string.h>

#include "inside.h"

#define PREFETCH 2          /* entries of a box that is not idle */
#define STEAL_NS 2000000u   /* a request that waits in a box for so long is offered to an idle worker */
#define TICK_MS 2           /* while something is on the board */
#define LESSON_DEADLINES 5
#define WRITES_NS 50000000u    /* for an answer that is being written when its time is over */
#define FORGIVE_NS 10000000000u

struct dispatch {
  front *f;
  pthread_mutex_t lock;
  job *first[TEAMS_MAX], **end[TEAMS_MAX]; /* wait for a worker of the team */
  job *of_slot[SLOTS_MAX];
};

/* Nobody answers into it any more; false: somebody is at it just now. */
static bool vacate(slot *s) {
  uint32_t use, state = slot_state_of(s, &use);
  return state != SLOT_WRITING && ((state != SLOT_RUNNING && state != SLOT_READY) || slot_move(s, use, (slot_state)state, SLOT_CLOSED));
}

static uint32_t set_free(slot *s) { /* → its next use: who is late by one changes nothing */
  uint32_t use;
  slot_state_of(s, &use);
  use = (use + 1) & 0x3fffff;
  atomic_store(&s->state, use << 3 | SLOT_FREE);
  return use;
}

ev_status dispatch_open(dispatch **out, front *f) {
  *out = NULL;
  dispatch *d = ev_zalloc(1, sizeof *d);
  if (d == NULL) return EV_ENOMEM;
  d->f = f;
  pthread_mutex_init(&d->lock, NULL);
  for (size_t i = 0; i < TEAMS_MAX; i++) d->end[i] = &d->first[i];
  for (uint32_t i = 0; i < SLOTS_MAX; i++) { /* what an earlier front left there is nobody's */
    slot *s = board_slot(f->b, i);
    if (vacate(s)) set_free(s);
  }
  *out = d;
  return EV_OK;
}

void dispatch_close(dispatch *d) {
  if (d == NULL) return;
  pthread_mutex_destroy(&d->lock);
  ev_free(d);
}

/* ---- Slots ---------------------------------------------------------------------------------------------*/
static void set_n_jobs(http_thread *t, size_t n) { __atomic_store_n(&t->n_jobs, n, __ATOMIC_RELAXED); } /* other threads count them */

slot *dispatch_begin(http_thread *t, job *j) {
  if (j->call == NULL && t->n_lessons > SLOTS_MAX / t->f->n_threads / 4) return NULL;
  while (t->n_free > 0 && !vacate(board_slot(t->f->b, t->free_slots[t->n_free - 1]))) t->lost[t->n_lost++] = t->free_slots[--t->n_free]; /* an earlier front's worker writes there */
  if (t->n_free == 0) return NULL;
  j->slot = t->free_slots[--t->n_free];
  slot *s = board_slot(t->f->b, j->slot);
  j->use = set_free(s);
  s->thread = (uint32_t)t->index;
  t->jobs[t->n_jobs] = j;
  set_n_jobs(t, t->n_jobs + 1);
  t->n_lessons += j->call == NULL;
  return s;
}

static void unqueue(dispatch *d, job *j) { /* with the lock held */
  for (job **at = &d->first[j->team]; *at != NULL && j->queued; at = &(*at)->next)
    if (*at == j) {
      *at = j->next;
      if (*at == NULL) d->end[j->team] = at;
      break;
    }
  j->queued = false;
  j->next = NULL;
}

static void give_back(http_thread *t, job *j) {
  dispatch *d = t->f->dispatch;
  slot *s = board_slot(t->f->b, j->slot);
  pthread_mutex_lock(&d->lock);
  d->of_slot[j->slot] = NULL;
  unqueue(d, j);
  pthread_mutex_unlock(&d->lock);
  if (slot_state_of(s, NULL) == SLOT_WRITING) { /* somebody may still do so: nobody's until he is through, or dead */
    t->lost[t->n_lost++] = j->slot;
  } else {
    atomic_store(&s->state, j->use << 3 | SLOT_FREE);
    t->free_slots[t->n_free++] = j->slot;
  }
  t->n_lessons -= j->call == NULL;
  for (size_t i = 0; i < t->n_jobs; i++)
    if (t->jobs[i] == j) {
      t->jobs[i] = t->jobs[t->n_jobs - 1];
      set_n_jobs(t, t->n_jobs - 1);
      break;
    }
}

static void find_lost(http_thread *t) {
  for (size_t i = t->n_lost; i-- > 0;) {
    slot *s = board_slot(t->f->b, t->lost[i]);
    if (!vacate(s)) continue;
    set_free(s);
    t->free_slots[t->n_free++] = t->lost[i];
    t->lost[i] = t->lost[--t->n_lost];
  }
}

bool dispatch_ready(const http_thread *t) {
  for (size_t i = 0; i < t->n_jobs; i++)
    if (slot_state_of(board_slot(t->f->b, t->jobs[i]->slot), NULL) == SLOT_DONE) return true;
  return false;
}

size_t dispatch_outstanding(const http_thread *t) { return __atomic_load_n(&t->n_jobs, __ATOMIC_RELAXED); }

/* ---- Workers -------------------------------------------------------------------------------------------*/
/* The seat of the team with the shortest box below `most`, or -1. */
static int shortest(const board *b, uint32_t team, size_t most) {
  int best = -1;
  for (uint32_t i = team * TEAM_SEATS; i < (team + 1) * TEAM_SEATS; i++) {
    if (atomic_load_explicit(&b->seats[i].state, memory_order_acquire) != SEAT_READY) continue;
    size_t n = box_waiting(b, i);
    if (n < most) {
      best = (int)i;
      most = n;
    }
    if (n == 0) break;
  }
  return best;
}

static bool push(dispatch *d, job *j) {
  int at = shortest(d->f->b, j->team, PREFETCH);
  if (at < 0 || !box_push(d->f->b, (uint32_t)at, j->slot, j->use)) return false;
  j->pushed = true;
  return true;
}

static void pump(dispatch *d, uint32_t team) {
  while (d->first[team] != NULL) {
    job *j = d->first[team];
    if (!push(d, j)) return;
    unqueue(d, j);
  }
}

static void put(dispatch *d, job *j) { /* in a box, or in the queue before them */
  if (j->queued || (d->first[j->team] == NULL && push(d, j))) return; /* queued: it lay in the boxes of two that died */
  j->pushed = false;
  j->queued = true;
  j->next = NULL;
  *d->end[j->team] = j;
  d->end[j->team] = &j->next;
}

static bool can_serve(const board *b, uint32_t place) { return place != 0 && atomic_load(&b->teams[place - 1].state) == TEAM_READY; }

/* Who answers what team + 1 = `place` fails at: the champion, or if that is the one, the reserve. 0: nobody */
static uint32_t behind(const board *b, uint32_t place) {
  uint32_t champion = atomic_load(&b->champion), reserve = atomic_load(&b->reserve);
  if (champion != place && can_serve(b, champion)) return champion;
  return reserve != place && can_serve(b, reserve) ? reserve : 0;
}

/* Which team gets it: of the user's arm, or for a second try the one behind. → false: nobody can */
static bool choose(const board *b, job *j) {
  uint32_t place = j->second ? behind(b, j->team + 1) : atomic_load(j->challenger ? &b->challenger : &b->champion);
  if (!j->second && !can_serve(b, place)) place = behind(b, place);
  if (place == 0) return false;
  j->team = place - 1;
  memcpy(j->version, b->teams[j->team].version, sizeof j->version);
  return true;
}

static bool has_second(const board *b, const job *j) { return j->call != NULL && !j->second && behind(b, j->team + 1) != 0; }

/* What is over when: with somebody behind, half of the time is his. */
static void set_times(const front *f, job *j, slot *s) {
  uint64_t all = (uint64_t)f->o->deadline_ms * 1000000;
  j->begun_ns = ev_now_ns();
  if (j->call == NULL) {
    j->due_ns = j->begun_ns + LESSON_DEADLINES * all;
    s->deadline_ns = 0;
  } else if (has_second(f->b, j)) {
    j->due_ns = j->end_ns - all * 4 / 10;
    s->deadline_ns = j->end_ns - all / 2;
  } else {
    j->due_ns = j->end_ns;
    s->deadline_ns = j->end_ns - all / 10;
  }
  s->kill_ns = j->due_ns;
  s->least_ns = j->due_ns > j->begun_ns ? (j->due_ns - j->begun_ns) / 2 : 0;
  s->taken_ns = 0;
}

static void send_slot(http_thread *t, job *j, slot *s) {
  dispatch *d = t->f->dispatch;
  set_times(t->f, j, s);
  s->failed = FAILED_NOT;
  s->answer.n = 0;
  s->text_len = 0;
  atomic_store(&s->state, j->use << 3 | SLOT_READY);
  pthread_mutex_lock(&d->lock);
  d->of_slot[j->slot] = j;
  put(d, j);
  pthread_mutex_unlock(&d->lock);
}

void dispatch_send(http_thread *t, job *j) {
  slot *s = board_slot(t->f->b, j->slot);
  if (choose(t->f->b, j)) {
    send_slot(t, j, s);
  } else {
    give_back(t, j);
    job_done(t, j, s, NULL, true);
  }
}

/* ---- What comes back -----------------------------------------------------------------------------------*/
static bool lay_about(const job *j, const slot *s) { return s->taken_ns + s->least_ns > j->due_ns; } /* in a queue, for most of its time */

static void strike(const front *f, const job *j, const slot *s) {
  if (lay_about(j, s)) return;
  uint32_t n = atomic_fetch_add(&f->b->teams[j->team].strikes, 1) + 1;
  if (n >= atomic_load(&f->b->strikes_max)) bell_ring(f->bells->supervisor);
}

static void finish(http_thread *t, job *j, slot *s, const ev_answer *answer, bool degraded) {
  give_back(t, j); /* this thread takes no other before it has read the answer */
  job_done(t, j, s, answer, degraded);
}

/* The reserve's turn; false: there is none, or no time. */
static bool again(http_thread *t, job *j, slot *s) {
  if (!has_second(t->f->b, j) || ev_now_ns() + 2000000 >= j->end_ns) return false;
  pthread_mutex_lock(&t->f->dispatch->lock); /* an entry that still lies in a box is of an earlier use */
  t->f->dispatch->of_slot[j->slot] = NULL;
  unqueue(t->f->dispatch, j); /* of the team that it waited for */
  pthread_mutex_unlock(&t->f->dispatch->lock);
  uint32_t before = j->team;
  j->second = true;
  if (!choose(t->f->b, j) || j->team == before) {
    j->team = before;
    j->second = false;
    return false;
  }
  j->use = (j->use + 1) & 0x3fffff;
  j->pushed = false;
  atomic_fetch_add(&t->n.second_tries, 1);
  send_slot(t, j, s);
  return true;
}

static void done(http_thread *t, job *j, slot *s) {
  if (j->call == NULL && s->failed != FAILED_NOT) ev_log(EV_LOG_ERROR, "version %.12s: %.1000s", t->f->b->teams[j->team].version, s->text);
  if (s->failed == FAILED_NOT) {
    if (j->call != NULL && s->answer.degraded != 0) strike(t->f, j, s); /* a node was left out */
    finish(t, j, s, &s->answer, j->second || s->answer.degraded != 0);
    return;
  }
  if (j->call != NULL && s->failed == FAILED_SCRIPT && lay_about(j, s)) {
    atomic_fetch_add(&t->f->b->late, 1); /* and no error of the version's */
  } else if (s->failed != FAILED_DEAD) { /* a death is a strike only if the team says so */
    ev_log(EV_LOG_ERROR, "version %.12s: %.1000s", t->f->b->teams[j->team].version, s->text);
    strike(t->f, j, s);
  }
  if (s->failed == FAILED_DEAD && ev_now_ns() >= j->due_ns) atomic_fetch_add(&t->f->b->late, 1); /* its worker was killed for it before it was looked at */
  if (j->call != NULL && again(t, j, s)) return;
  finish(t, j, s, j->call != NULL && s->failed != FAILED_CORRUPT && s->answer.n > 0 ? &s->answer : NULL, true);
}

static void over(http_thread *t, job *j, slot *s, uint64_t now) {
  bool ran = slot_move(s, j->use, SLOT_RUNNING, SLOT_CLOSED), waited = !ran && slot_move(s, j->use, SLOT_READY, SLOT_CLOSED);
  if (!ran && !waited) {
    if (now < j->due_ns + WRITES_NS || slot_state_of(s, NULL) != SLOT_WRITING) return; /* it has just been answered, or is about to be */
    atomic_fetch_add(&t->f->b->late, 1);
    finish(t, j, s, NULL, true);
    return;
  }
  atomic_fetch_add(&t->f->b->late, 1);
  bool interim = s->answer.n > 0 && !waited;
  if (j->call != NULL && !interim && again(t, j, s)) return;
  finish(t, j, s, interim ? &s->answer : NULL, true);
}

/* Its team leaves, or died: what is still in the queue is another's. What is in a box is done, or comes back with a death. */
static void move(http_thread *t, job *j, slot *s) {
  dispatch *d = t->f->dispatch;
  bool nobody = false;
  pthread_mutex_lock(&d->lock);
  if (j->queued) {
    unqueue(d, j);
    if (choose(t->f->b, j)) put(d, j);
    else nobody = slot_move(s, j->use, SLOT_READY, SLOT_CLOSED); /* else a box that was left had it, too, and it has begun */
  }
  pthread_mutex_unlock(&d->lock);
  if (nobody) finish(t, j, s, NULL, true);
}

static void forgive(const dispatch *d, uint64_t now) { /* a strike is forgotten after a while: what fails once a minute is no bad version */
  static uint64_t last_ns;
  if (now < last_ns + FORGIVE_NS) return;
  last_ns = now;
  for (size_t i = 0; i < TEAMS_MAX; i++) {
    _Atomic uint32_t *strikes = &d->f->b->teams[i].strikes;
    uint32_t n = atomic_load(strikes);
    if (n > 0) atomic_compare_exchange_strong(strikes, &n, n - 1);
  }
}

static void look_after(http_thread *t) { /* one thread does: workers that hang, boxes of the dead */
  dispatch *d = t->f->dispatch;
  board *b = t->f->b;
  uint64_t now = ev_now_ns();
  bool woke[THREADS_MAX] = {false};
  forgive(d, now);
  for (uint32_t i = 0; i < SEATS_MAX; i++) {
    seat *s = &b->seats[i];
    uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);
    if (state == SEAT_FREE) continue;
    uint64_t due = atomic_load(&s->due_ns);
    if (state == SEAT_READY && due != 0 && now >= due && atomic_compare_exchange_strong(&s->condemned, &(uint32_t){0}, 1)) bell_ring(t->f->bells->team[i / TEAM_SEATS]);
    if (state != SEAT_DEAD) continue;
    uint32_t entries[BOX_DEPTH];
    pthread_mutex_lock(&d->lock);
    size_t n = box_salvage(b, i, entries);
    for (size_t k = 0; k < n; k++) {
      uint32_t at = entries[k] & (SLOTS_MAX - 1), use = entries[k] >> 10;
      slot *lost = board_slot(b, at);
      job *j = d->of_slot[at];
      if (j == NULL || j->use != use) {
        slot_move(lost, use, SLOT_WRITING, SLOT_CLOSED); /* answered without it: its thread finds it now */
        continue;
      }
      if (slot_move(lost, use, SLOT_WRITING, SLOT_CLOSED)) lost->answer.n = 0; /* it may be half a one */
      else if (!slot_move(lost, use, SLOT_RUNNING, SLOT_CLOSED)) {
        if (slot_state_of(lost, NULL) == SLOT_READY) put(d, j); /* not begun: another's */
        continue;
      }
      lost->failed = FAILED_DEAD;
      atomic_store(&lost->state, use << 3 | SLOT_DONE);
      if (lost->thread < THREADS_MAX) woke[lost->thread] = true;
    }
    pthread_mutex_unlock(&d->lock);
  }
  for (size_t i = 0; i < t->f->n_threads; i++)
    if (woke[i]) bell_ring(t->f->bells->thread[i]);
}

static void steal(dispatch *d, const job *j, uint64_t now) {
  if (!j->pushed || now < j->begun_ns + STEAL_NS || slot_state_of(board_slot(d->f->b, j->slot), NULL) != SLOT_READY) return;
  int at = shortest(d->f->b, j->team, 1);
  if (at >= 0) box_push(d->f->b, (uint32_t)at, j->slot, j->use);
}

void dispatch_collect(http_thread *t) {
  dispatch *d = t->f->dispatch;
  if (t->index == 0) look_after(t);
  uint64_t now = ev_now_ns();
  find_lost(t);
  for (size_t i = t->n_jobs; i-- > 0;) { /* backwards: a job that ends is replaced by the last */
    if (i >= t->n_jobs) continue;
    job *j = t->jobs[i];
    slot *s = board_slot(t->f->b, j->slot);
    if (slot_state_of(s, NULL) == SLOT_DONE) done(t, j, s);
    else if (now >= j->due_ns) over(t, j, s, now);
    else if (!can_serve(t->f->b, j->team + 1)) move(t, j, s);
  }
  pthread_mutex_lock(&d->lock);
  for (uint32_t team = 0; team < TEAMS_MAX; team++)
    if (d->first[team] != NULL) pump(d, team);
  for (size_t i = 0; i < t->n_jobs; i++) steal(d, t->jobs[i], now);
  pthread_mutex_unlock(&d->lock);
}

int dispatch_wait_ms(const http_thread *t) {
  if (t->n_jobs > 0) return TICK_MS;
  return t->index == 0 ? 50 : -1; /* somebody else's requests hang, too */
}
