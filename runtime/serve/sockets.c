/* sockets.c - where the service listens, whom it is, and what it tells the system's manager. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "inside.h"

#define FIRST_HANDED 3 /* SD_LISTEN_FDS_START */
#define BACKLOG 1024

static void admin_path(struct sockaddr_un *a, const ev_serve_options *o) {
  *a = (struct sockaddr_un){.sun_family = AF_UNIX};
  snprintf(a->sun_path, sizeof a->sun_path, "%s/control.sock", o->home);
}

/* Sockets of the manager's (systemd, or whoever speaks its protocol): they stay open while the service is started anew. */
static size_t handed_over(void) {
  const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
  int64_t p, count;
  if (pid == NULL || n == NULL || !ev_parse_i64(pid, strlen(pid), &p) || !ev_parse_i64(n, strlen(n), &count)) return 0;
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_FDNAMES");
  return p == (int64_t)getpid() && count > 0 && count <= THREADS_MAX ? (size_t)count : 0;
}

static ev_status take_handed(sockets *out, size_t n) {
  for (size_t i = 0; i < n; i++) {
    int fd = FIRST_HANDED + (int)i;
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0) return ev_fail_errno("LISTEN_FDS: descriptor %d is no socket", fd);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (a.ss_family == AF_UNIX) {
      out->admin = fd;
      continue;
    }
    if (a.ss_family == AF_INET) out->port = ntohs(((struct sockaddr_in *)&a)->sin_port);
    if (a.ss_family == AF_INET6) out->port = ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
    out->http[out->n_http++] = fd;
  }
  return EV_OK;
}

static ev_status open_http(sockets *out, const ev_serve_options *o) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(o->port)};
  int yes = 1;
  if (inet_pton(AF_INET, o->host, &a.sin_addr) != 1) return ev_fail(EV_EINVAL, "--host: '%.60s' is no IPv4 address", o->host);
  for (int i = 0; i < o->http_threads; i++) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof a;
    if (fd < 0) return ev_fail_errno("socket");
    out->http[out->n_http++] = fd;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    /* The first binds alone, so that a port that another service has is refused; then the others may share it. */
    if (i > 0) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0) return ev_fail_errno("cannot listen on %s:%u", o->host, o->port);
    if (i == 0) {
      getsockname(fd, (struct sockaddr *)&a, &n); /* port 0: the one that was found */
      setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    }
  }
  for (size_t i = 0; i < out->n_http; i++)
    if (listen(out->http[i], BACKLOG) != 0) return ev_fail_errno("cannot listen on %s:%u", o->host, o->port);
  out->port = ntohs(a.sin_port);
  return EV_OK;
}

static ev_status open_admin(sockets *out, const ev_serve_options *o) {
  struct sockaddr_un a;
  admin_path(&a, o);
  if (strlen(o->home) + sizeof "/control.sock" > sizeof a.sun_path) {
    ev_log(EV_LOG_WARN, "%s/control.sock: the path is too long for a socket; the service cannot be administered over it", o->home);
    return EV_OK;
  }
  int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool taken = probe >= 0 && connect(probe, (struct sockaddr *)&a, sizeof a) == 0;
  if (probe >= 0) close(probe);
  if (taken) return ev_fail(EV_EEXIST, "%s: a service runs there already", a.sun_path);
  unlink(a.sun_path);
  out->admin = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  mode_t before = umask(0177);
  int bound = out->admin >= 0 ? bind(out->admin, (struct sockaddr *)&a, sizeof a) : -1;
  umask(before);
  if (bound != 0 || listen(out->admin, 64) != 0) return ev_fail_errno("%s", a.sun_path);
  if (o->user != NULL && geteuid() == 0) {
    const struct passwd *p = getpwnam(o->user);
    if (p != NULL && chown(a.sun_path, p->pw_uid, p->pw_gid) != 0) return ev_fail_errno("%s", a.sun_path);
  }
  return EV_OK;
}

ev_status sockets_open(sockets *out, const ev_serve_options *o) {
  *out = (sockets){.admin = -1};
  size_t n = handed_over();
  EV_TRY(ev_mkdirs(o->home));
  if (n > 0) EV_TRY(take_handed(out, n));
  if (out->n_http == 0) EV_TRY(open_http(out, o));
  return out->admin < 0 ? open_admin(out, o) : EV_OK;
}

void sockets_close(sockets *s, const ev_serve_options *o) {
  struct sockaddr_un a;
  admin_path(&a, o);
  for (size_t i = 0; i < s->n_http; i++) close(s->http[i]);
  if (s->admin >= 0) {
    close(s->admin);
    unlink(a.sun_path);
  }
  *s = (sockets){.admin = -1};
}

ev_status privileges_drop(const ev_serve_options *o) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ev_fail_errno("no_new_privs");
  if (o->user == NULL) return EV_OK;
  const struct passwd *p = getpwnam(o->user);
  if (p == NULL) return ev_fail(EV_EINVAL, "--user: nobody here is called '%.60s'", o->user);
  if (geteuid() == p->pw_uid) return EV_OK;
  if (geteuid() != 0) return ev_fail(EV_EINVAL, "--user: only root can become '%.60s'", o->user);
  if (initgroups(p->pw_name, p->pw_gid) != 0 || setgid(p->pw_gid) != 0 || setuid(p->pw_uid) != 0) return ev_fail_errno("cannot become %s", o->user);
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  if (access(o->home, W_OK) != 0) return ev_fail_errno("%s: '%s' cannot write there", o->home, o->user);
  return EV_OK;
}

void notify_system(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof a.sun_path) return;
  memcpy(a.sun_path, path, strlen(path));
  if (path[0] == '@') a.sun_path[0] = '\0'; /* an abstract name */
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  ssize_t n = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
  if (n < 0) ev_log(EV_LOG_WARN, "$NOTIFY_SOCKET: %s", strerror(errno));
  close(fd);
}
