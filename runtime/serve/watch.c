/* watch.c - which of the files that a version was made of were edited. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "inside.h"

#define FILES_MAX 1024

struct watch {
  int fd;
  size_t n;
  struct {
    int folder; /* inotify's number */
    char *name;
  } files[FILES_MAX];
  int folders[FILES_MAX];
  size_t n_folders;
};

ev_status watch_open(watch **out) {
  *out = NULL;
  watch *w = ev_zalloc(1, sizeof *w);
  if (w == NULL) return EV_ENOMEM;
  w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (w->fd < 0) {
    ev_free(w);
    return ev_fail_errno("inotify");
  }
  *out = w;
  return EV_OK;
}

static void forget(watch *w) {
  for (size_t i = 0; i < w->n; i++) free(w->files[i].name);
  w->n = 0;
}

void watch_close(watch *w) {
  if (w == NULL) return;
  forget(w);
  close(w->fd);
  ev_free(w);
}

int watch_fd(const watch *w) { return w->fd; }

static bool among(const int *list, size_t n, int x) {
  for (size_t i = 0; i < n; i++)
    if (list[i] == x) return true;
  return false;
}

/* The folder is watched: editors replace files, so a watch on the file itself would be lost. */
static void add(watch *w, const char *path, int *folders, size_t *n_folders) {
  char folder[4096];
  const char *slash = strrchr(path, '/');
  snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path), slash != NULL ? path : ".");
  int id = inotify_add_watch(w->fd, folder, IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM);
  if (id < 0) {
    ev_log(EV_LOG_WARN, "%s: edits will not be noticed: %s", folder, strerror(errno));
    return;
  }
  if (!among(folders, *n_folders, id)) folders[(*n_folders)++] = id;
  w->files[w->n].folder = id;
  w->files[w->n].name = strdup(slash != NULL ? slash + 1 : path);
  if (w->files[w->n].name != NULL) w->n++;
}

void watch_files(watch *w, const json_t *files) {
  int folders[FILES_MAX];
  size_t n_folders = 0;
  forget(w);
  for (size_t i = 0; i < json_array_size(files) && w->n < FILES_MAX; i++) {
    const char *path = json_string_value(json_array_get(files, i));
    if (path != NULL) add(w, path, folders, &n_folders);
  }
  for (size_t i = 0; i < w->n_folders; i++)
    if (!among(folders, n_folders, w->folders[i])) inotify_rm_watch(w->fd, w->folders[i]);
  memcpy(w->folders, folders, n_folders * sizeof *folders);
  w->n_folders = n_folders;
}

static bool is_source(const char *name) {
  const char *dot = strrchr(name, '.');
  return dot != NULL && (strcmp(dot, ".lua") == 0 || strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

bool watch_read(watch *w, bool any_source) {
  char buffer[16384] __attribute__((aligned(8)));
  bool edited = false;
  ssize_t n;
  while ((n = read(w->fd, buffer, sizeof buffer)) > 0)
    for (char *p = buffer; p < buffer + n;) {
      const struct inotify_event *e = (const struct inotify_event *)(const void *)p;
      for (size_t i = 0; i < w->n && e->len > 0; i++) edited = edited || (w->files[i].folder == e->wd && strcmp(w->files[i].name, e->name) == 0);
      edited = edited || e->mask & IN_Q_OVERFLOW || (any_source && e->len > 0 && is_source(e->name));
      p += sizeof *e + e->len;
    }
  return edited;
}
