/* lines.c - the lines of the files that a command line names, one after another. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

typedef struct reading {
  ev_bar *bar;
  ev_line_fn *fn;
  void *ctx;
  uint64_t bytes_done, bytes_all; /* all: 0 = not known */
  char *line;                     /* getline's */
  size_t line_cap;
} reading;

static ev_status read_stream(reading *r, FILE *f, const char *file) {
  for (size_t number = 1;; number++) {
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    errno = 0;
    ssize_t len = getline(&r->line, &r->line_cap, f);
    if (len < 0 && ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    if (len < 0 && ferror(f)) return ev_fail_errno("%s", file);
    if (len < 0 && !feof(f)) return ev_fail(EV_ENOMEM, "%s:%zu: out of memory", file, number);
    if (len < 0) return EV_OK;
    r->bytes_done += (uint64_t)len;
    if (len > 0 && r->line[len - 1] == '\n') len--;
    EV_TRY(r->fn(r->ctx, file, number, r->line, (size_t)len));
    if (r->bytes_all > 0) ev_bar_update(r->bar, (double)r->bytes_done * 1e-6, (double)r->bytes_all * 1e-6);
  }
}

static ev_status read_files(reading *r, const json_t *opts, size_t first) {
  size_t n = ev_opt_n_args(opts);
  struct stat st;
  for (size_t i = first; i < n; i++) { /* how much there is; nothing is taken when a file is missing */
    const char *file = ev_opt_arg(opts, i);
    if (strcmp(file, "-") == 0) continue;
    if (stat(file, &st) != 0) return ev_fail_errno("%s", file);
    if (S_ISDIR(st.st_mode)) return ev_fail(EV_EINVAL, "%s: a folder", file);
    if (S_ISREG(st.st_mode)) r->bytes_all += (uint64_t)st.st_size;
  }
  if (n == first) return read_stream(r, stdin, "standard input");
  for (size_t i = first; i < n; i++) {
    const char *file = ev_opt_arg(opts, i);
    bool standard = strcmp(file, "-") == 0;
    FILE *f = standard ? stdin : fopen(file, "re");
    if (f == NULL) return ev_fail_errno("%s", file);
    ev_status status = read_stream(r, f, standard ? "standard input" : file);
    if (!standard) fclose(f);
    EV_TRY(status);
  }
  return EV_OK;
}

ev_status ev_read_lines(const json_t *opts, size_t first, ev_bar *bar, ev_line_fn *fn, void *ctx) {
  reading r = {.bar = bar, .fn = fn, .ctx = ctx};
  ev_status status = read_files(&r, opts, first);
  free(r.line);
  return status;
}
