/* serve_bare.c - the least that libmicrohttpd can do for an answer: one thread, epoll, a constant. What the service's empty handler is held against.
 *
 *   serve_bare → the port, on a line; until it is killed */
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct MHD_Response *response;

static enum MHD_Result handle(void *ctx, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data, size_t *n, void **state) {
  static int seen;
  (void)ctx, (void)url, (void)method, (void)version, (void)data, (void)n;
  if (*state == NULL) {
    *state = &seen;
    return MHD_YES;
  }
  return MHD_queue_response(c, 200, response);
}

int main(void) {
  static char text[] = "{\"alive\":true}";
  response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_PERSISTENT);
  if (response == NULL) return 1;
  MHD_add_response_header(response, "Content-Type", "application/json");
  struct MHD_Daemon *d = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, handle, NULL, MHD_OPTION_END);
  const union MHD_DaemonInfo *info = d != NULL ? MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT) : NULL;
  if (info == NULL) return 1;
  printf("%u\n", info->port);
  fflush(stdout);
  pause();
  return 0;
}
