/* core.h - the floor every room stands on.
 *
 * Status and errors, memory, buffers, files, log, clock, random numbers, hashes, threads, interruption.
 * Nothing here knows what a recommender is.
 *
 * Thread safety: the last error and the random generator are per thread or per object; everything else is
 * safe to call from any thread unless its line says otherwise.
 */
#ifndef EV_CORE_H
#define EV_CORE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EV_VERSION "0.1.0"
#define EV_NONE UINT32_MAX /* no such user, item, token or row */
#define EV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* ---- Status and errors -------------------------------------------------------------------------------
 * A function that can fail returns ev_status and leaves its message in the thread's last error. Libraries
 * print nothing: the shell prints ev_error() and exits, a binding raises it. */
typedef enum ev_status {
  EV_OK = 0,
  EV_EINVAL,    /* the caller or a file is wrong: the message names file, line and value */
  EV_EIO,       /* the system refused: the message carries strerror */
  EV_ENOMEM,    /* an allocation failed or a size overflowed */
  EV_ECORRUPT,  /* a structure failed its validator */
  EV_ENOTFOUND, /* no such file, name or id */
  EV_EEXIST,    /* it is there already */
  EV_ELIMIT,    /* a limit or budget ended it */
  EV_EINTR,     /* ev_interrupt() was called */
  EV_ESCRIPT    /* a Lua script raised an error */
} ev_status;

ev_status ev_fail(ev_status status, const char *fmt, ...) EV_PRINTF(2, 3); /* sets the last error, returns status */
ev_status ev_fail_errno(const char *fmt, ...) EV_PRINTF(1, 2); /* appends strerror(errno); ENOENT → EV_ENOTFOUND, ENOMEM → EV_ENOMEM, EEXIST → EV_EEXIST, else EV_EIO */
const char *ev_error(void);                 /* the thread's last message; borrowed until its next failure */
const char *ev_status_name(ev_status status);

#define EV_TRY(call)                      \
  do {                                    \
    ev_status ev_try_ = (call);           \
    if (ev_try_ != EV_OK) return ev_try_; \
  } while (0)

/* ---- Memory ------------------------------------------------------------------------------------------
 * All sizes are n * size with the overflow checked. NULL on failure, with the last error set. */
void *ev_alloc(size_t n, size_t size);            /* 64-byte aligned, not cleared; n = 0 gives a valid pointer */
void *ev_zalloc(size_t n, size_t size);           /* 64-byte aligned, zeroed */
void *ev_resize(void *p, size_t n, size_t size);  /* as realloc: 16-byte alignment; p stays valid on failure */
char *ev_strndup(const char *s, size_t len);      /* NUL-terminated copy */
void ev_free(void *p);                            /* NULL does nothing */
void ev_mem_fail_at(int64_t n);                   /* tests: the n-th allocation from now (0 = the next) fails; -1 = none. Per thread */
bool ev_mem_fails(void);                          /* asked by who takes memory another way: whether a test chose this one to fail; the error is set */
uint64_t ev_peak_rss_bytes(void);                 /* the process's highest resident size */

/* ---- Growable byte buffer ----------------------------------------------------------------------------
 * Zero-initialised is empty. data is always NUL-terminated once anything was appended. */
typedef struct ev_buf {
  char *data; /* owned; ev_buf_free */
  size_t len; /* bytes used, the NUL not counted */
  size_t cap;
} ev_buf;

ev_status ev_buf_reserve(ev_buf *b, size_t extra); /* room for extra more bytes and the NUL */
ev_status ev_buf_append(ev_buf *b, const void *data, size_t len);
ev_status ev_buf_printf(ev_buf *b, const char *fmt, ...) EV_PRINTF(2, 3);
ev_status ev_buf_quoted(ev_buf *b, const char *s, size_t len); /* as a JSON string, with its quotes */
void ev_buf_clear(ev_buf *b); /* len = 0, memory kept */
void ev_buf_free(ev_buf *b);

/* ---- Files -------------------------------------------------------------------------------------------
 * A mapped file is read-only. A file written here appears whole or not at all: it is written beside its
 * name, synced, then renamed. */
typedef struct ev_map {
  const void *data; /* NULL when the file is empty */
  size_t size;
  uint64_t device, file; /* which file it is, whatever lies under its path by now */
} ev_map;

ev_status ev_map_open(ev_map *out, const char *path);
void ev_map_close(ev_map *m);
bool ev_map_current(const ev_map *m, const char *path); /* path still leads to the file that was mapped */

typedef struct ev_writer ev_writer;
ev_status ev_writer_open(ev_writer **out, const char *path); /* creates path.tmp.PID */
ev_status ev_writer_write(ev_writer *w, const void *data, size_t len); /* buffered */
ev_status ev_writer_pwrite(ev_writer *w, const void *data, size_t len, uint64_t offset); /* overwrite earlier bytes */
uint64_t ev_writer_offset(const ev_writer *w);
ev_status ev_writer_commit(ev_writer *w); /* sync, rename, sync the folder; frees w in every case */
void ev_writer_abort(ev_writer *w);       /* removes the temporary file; NULL does nothing */

ev_status ev_mkdirs(const char *path);    /* as mkdir -p */
bool ev_file_exists(const char *path);
ev_status ev_file_read(ev_buf *out, const char *path, size_t max_bytes); /* whole small file; larger → EV_ELIMIT */

/* ---- Regions -----------------------------------------------------------------------------------------
 * Memory that grows in place: address space is reserved once, so a pointer into it holds until the region is closed,
 * also while another thread grows it. Pages are asked to be huge ones. */
typedef struct ev_region {
  char *base;   /* NULL: closed */
  size_t size;  /* bytes that may be read and written */
  size_t limit; /* bytes reserved */
} ev_region;

ev_status ev_region_open(ev_region *r, size_t limit); /* reserves; size 0. EV_ENOMEM */
ev_status ev_region_map(ev_region *r, const char *path, uint64_t offset, size_t size); /* of an empty region: its first bytes are a private view of the file's, copied when written; offset on a page boundary. The file must not be cut while it is in use */
ev_status ev_region_grow(ev_region *r, size_t size); /* at least so many bytes; new ones are zero. EV_ELIMIT beyond the reservation, EV_ENOMEM */
void ev_region_close(ev_region *r);                  /* closed: does nothing */

/* ---- Epochs --------------------------------------------------------------------------------------------
 * Readers that never wait, over memory that is used again (epoch-based reclamation, Fraser 2004). A writer first makes
 * something unreachable, then takes a mark; it may reuse the memory once every reader that was inside then has left. */
typedef struct ev_epochs ev_epochs;
ev_epochs *ev_epochs_new(void); /* NULL: out of memory */
void ev_epochs_free(ev_epochs *e);
unsigned ev_epoch_enter(ev_epochs *e);              /* a reader comes in: its place. At most 256 at once, and one who comes in twice has two; the next spins */
void ev_epoch_leave(ev_epochs *e, unsigned place);
uint64_t ev_epoch_mark(ev_epochs *e);
bool ev_epoch_passed(ev_epochs *e, uint64_t mark);  /* every reader that was inside at the mark has left */
void ev_epoch_wait(ev_epochs *e, uint64_t mark);    /* until it has passed; never called from inside */

/* ---- Text --------------------------------------------------------------------------------------------*/
char *ev_text_mend(char *s); /* control characters and what is not UTF-8 become '?', in place: a quotation may end within a character. Returns s */
size_t ev_utf8_invalid(const char *s, size_t len); /* offset of the first byte that is not UTF-8; len when all is */
bool ev_parse_f64(const char *s, size_t len, double *out); /* the whole field, decimal or exponent, finite; locale ignored */
bool ev_parse_i64(const char *s, size_t len, int64_t *out);
double ev_float_decimal(float x); /* the number that its shortest decimal form says: 0.1 for 0.1f, to be shown to people */
size_t ev_edit_distance(const char *a, const char *b); /* insertions, deletions and replacements from a to b: what a mistyped word is suggested by; SIZE_MAX: b is no word */

/* ---- Log ---------------------------------------------------------------------------------------------*/
typedef enum ev_log_level { EV_LOG_DEBUG, EV_LOG_INFO, EV_LOG_WARN, EV_LOG_ERROR } ev_log_level;
void ev_log_set(ev_log_level least);
void ev_log(ev_log_level level, const char *fmt, ...) EV_PRINTF(2, 3); /* one line on standard error */

/* ---- Clock -------------------------------------------------------------------------------------------*/
uint64_t ev_now_ns(void);  /* monotonic */
int64_t ev_wall_ms(void);  /* since the Unix epoch */

/* ---- Random numbers ----------------------------------------------------------------------------------
 * xoshiro256** (Blackman and Vigna 2018) seeded by splitmix64. The same seed and stream give the same
 * numbers on every machine. */
typedef struct ev_rng {
  uint64_t s[4];
} ev_rng;

void ev_rng_seed(ev_rng *r, uint64_t seed, uint64_t stream);
uint64_t ev_rng_u64(ev_rng *r);
uint32_t ev_rng_below(ev_rng *r, uint32_t n); /* uniform in [0, n), unbiased (Lemire 2019); n > 0 */
double ev_rng_f64(ev_rng *r);                 /* uniform in [0, 1) */
double ev_rng_normal(ev_rng *r);              /* standard normal (Marsaglia polar) */

/* ---- Hashes ------------------------------------------------------------------------------------------
 * Content addresses are BLAKE2b-256 (what is untrusted cannot collide); checksums and tables use XXH3. */
typedef struct ev_hash {
  uint8_t bytes[32];
} ev_hash;

typedef struct ev_hasher ev_hasher;
ev_hasher *ev_hasher_new(void); /* NULL: out of memory */
void ev_hasher_add(ev_hasher *h, const void *data, size_t len);
void ev_hasher_end(ev_hasher *h, ev_hash *out); /* frees h */
void ev_hash_of(ev_hash *out, const void *data, size_t len);
void ev_hash_hex(char out[65], const ev_hash *h);
uint64_t ev_checksum(const void *data, size_t len); /* XXH3-64 */

typedef struct ev_summer ev_summer; /* the same checksum in pieces */
ev_summer *ev_summer_new(void);     /* NULL: out of memory */
void ev_summer_add(ev_summer *s, const void *data, size_t len);
uint64_t ev_summer_end(ev_summer *s); /* frees s */

/* ---- Threads -----------------------------------------------------------------------------------------
 * One pool a process, started at first use, rebuilt in a forked child. fn gets [begin, end) slices of
 * [0, n), each at most grain long, in any order; a result must not depend on which worker ran which slice.
 * worker < ev_threads(). A nested call runs on the calling thread. */
typedef void ev_range_fn(void *ctx, size_t begin, size_t end, int worker);
void ev_parallel_for(size_t n, size_t grain, ev_range_fn *fn, void *ctx);
int ev_threads(void);
void ev_threads_set(int n); /* 0 = all cores (default); call from the main thread */

/* ---- Interruption ------------------------------------------------------------------------------------
 * Long loops look at ev_interrupted() and return EV_EINTR; nothing half-made stays behind. */
void ev_interrupt(void); /* async-signal safe */
bool ev_interrupted(void);
void ev_interrupt_clear(void);

#endif
