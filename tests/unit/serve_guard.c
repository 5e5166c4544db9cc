/* serve_guard.c - tokens give the role of their line and no other; a rate lets through what it says, whatever the addresses. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "support.h"

#include "../../runtime/serve/inside.h"

#define OK(x)                                                                                 \
  do {                                                                                        \
    ev_status is_ = (x);                                                                      \
    if (is_ != EV_OK) fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, ev_status_name(is_), ev_error()); \
  } while (0)

static guard *with_tokens(const char *text) {
  guard *g;
  const char *path = in_folder("tokens");
  write_text(path, text, strlen(text));
  chmod(path, 0600);
  OK(guard_open(&g, path, 0, 0));
  return g;
}

static void refused(const char *text, const char *message) {
  guard *g = (guard *)&text;
  char should[256];
  const char *path = in_folder("tokens");
  write_text(path, text, strlen(text));
  chmod(path, 0600);
  assert_int_not_equal(guard_open(&g, path, 0, 0), EV_OK);
  assert_null(g);
  snprintf(should, sizeof should, "%s%s", path, message);
  assert_string_equal(ev_error(), should);
}

static void without_tokens_all_may_read_and_give_feedback_and_the_socket_everything(void **s) {
  (void)s;
  guard *g;
  OK(guard_open(&g, NULL, 0, 0));
  assert_int_equal(guard_role(g, NULL, false), ROLE_FEEDBACK);
  assert_int_equal(guard_role(g, "anything", false), ROLE_FEEDBACK);
  assert_int_equal(guard_role(g, NULL, true), ROLE_ADMIN);
  guard_close(g);
  guard_close(NULL);
}

static void a_token_gives_the_role_of_its_line(void **s) {
  (void)s;
  char longest[300], longer[300], line[700];
  guard *g = with_tokens("# who may what\n\nread  reader-token-1 shop front\n feedback\tfeedback-token\r\n  # more\nadmin admin-token-9");
  assert_int_equal(guard_role(g, "reader-token-1", false), ROLE_READ);
  assert_int_equal(guard_role(g, "feedback-token", false), ROLE_FEEDBACK);
  assert_int_equal(guard_role(g, "admin-token-9", false), ROLE_ADMIN);
  assert_int_equal(guard_role(g, "admin-token-9", true), ROLE_ADMIN);
  const char *none[] = {"", "reader-token-", "reader-token-11", "Reader-token-1", "shop", "front", "admin", " admin-token-9", "feedback-token\r", NULL};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    assert_int_equal(guard_role(g, none[i], false), ROLE_NONE);
    assert_int_equal(guard_role(g, none[i], true), ROLE_NONE); /* there is an admin's token: the socket is not enough */
  }
  guard_close(g);
  g = with_tokens("read reader-token-1\n");
  assert_int_equal(guard_role(g, NULL, true), ROLE_ADMIN); /* nobody else could be */
  assert_int_equal(guard_role(g, "reader-token-1", true), ROLE_ADMIN);
  assert_int_equal(guard_role(g, NULL, false), ROLE_NONE);
  guard_close(g);
  memset(longest, 'x', sizeof longest);
  memcpy(longer, longest, sizeof longer);
  longest[256] = longer[257] = '\0';
  snprintf(line, sizeof line, "admin %s", longest);
  g = with_tokens(line);
  assert_int_equal(guard_role(g, longest, false), ROLE_ADMIN);
  assert_int_equal(guard_role(g, longer, false), ROLE_NONE);
  guard_close(g);
}

static void a_wrong_file_is_refused_with_its_line_and_without_its_token(void **s) {
  (void)s;
  guard *g;
  char line[400] = "read ";
  refused("", ": no token in it; a line is ROLE TOKEN [NAME]");
  refused("# nothing\n", ": no token in it; a line is ROLE TOKEN [NAME]");
  refused("read reader-token-1\nsecret-token-1 read\n", ":2: the first word is read, feedback or admin");
  refused("read short\n", ":1: a token has 8 to 256 bytes, and this has 5");
  refused("\n\nread\n", ":3: a token has 8 to 256 bytes, and this has 0");
  memset(line + 5, 'x', 257);
  refused(line, ":1: a token has 8 to 256 bytes, and this has 257");
  refused("read tök-en-tök\n", ":1: a token is of printable ASCII characters");
  refused("read reader-token-1\nadmin reader-token-1\n", ":2: this token stands further up already");
  assert_int_equal(guard_open(&g, in_folder("nowhere"), 0, 0), EV_ENOTFOUND);
  assert_int_equal(guard_open(&g, NULL, -1, 0), EV_EINVAL);
}

/* ---- Rates ---------------------------------------------------------------------------------------------*/
#define S UINT64_C(1000000000)

static struct sockaddr_storage address(const char *text) {
  struct sockaddr_storage a = {0};
  if (inet_pton(AF_INET, text, &((struct sockaddr_in *)(void *)&a)->sin_addr) == 1) a.ss_family = AF_INET;
  else if (inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)(void *)&a)->sin6_addr) == 1) a.ss_family = AF_INET6;
  else fail_msg("%s", text);
  return a;
}

static bool allows(guard *g, const char *text, uint64_t now) {
  struct sockaddr_storage a = address(text);
  return guard_allows(g, (const struct sockaddr *)(const void *)&a, now);
}

static unsigned let_through(guard *g, const char *text, uint64_t now, unsigned n) {
  unsigned through = 0;
  for (unsigned i = 0; i < n; i++) through += allows(g, text, now);
  return through;
}

static void a_rate_lets_through_a_burst_and_then_what_it_says(void **s) {
  (void)s;
  guard *g;
  OK(guard_open(&g, NULL, 10, 5));
  assert_int_equal(let_through(g, "10.0.0.1", 100 * S, 50), 5);
  assert_int_equal(let_through(g, "10.0.0.2", 100 * S, 50), 5); /* another's */
  assert_int_equal(let_through(g, "10.0.0.1", 100 * S + S / 10, 50), 1);
  assert_int_equal(let_through(g, "10.0.0.1", 101 * S, 50), 5); /* no more than a burst is saved */
  assert_int_equal(let_through(g, "10.0.0.1", 99 * S, 50), 0);  /* a thread whose clock was read earlier */
  unsigned through = 0;
  for (uint64_t t = 200 * S; t < 220 * S; t += S / 100) through += allows(g, "10.0.0.3", t); /* 100 a second, 20 seconds long */
  assert_true(through >= 200 && through <= 206);
  guard_close(g);
}

static void ipv6_counts_by_network_ipv4_alike_however_it_is_written_and_unix_never(void **s) {
  (void)s;
  guard *g;
  struct sockaddr_un un = {.sun_family = AF_UNIX};
  OK(guard_open(&g, NULL, 1, 3));
  assert_int_equal(let_through(g, "2001:db8:1:2::1", S, 9), 3);
  assert_int_equal(let_through(g, "2001:db8:1:2:ffff::9", S, 9), 0);
  assert_int_equal(let_through(g, "2001:db8:1:3::1", S, 9), 3);
  assert_int_equal(let_through(g, "192.0.2.7", S, 2), 2);
  assert_int_equal(let_through(g, "::ffff:192.0.2.7", S, 9), 1);
  for (int i = 0; i < 100; i++) {
    assert_true(guard_allows(g, (const struct sockaddr *)(const void *)&un, S));
    assert_true(guard_allows(g, NULL, S));
  }
  guard_close(g);
  OK(guard_open(&g, NULL, 0, 0)); /* off */
  assert_int_equal(let_through(g, "192.0.2.7", S, 5000), 5000);
  guard_close(g);
}

static void a_flood_of_addresses_forgives_nobody_who_stays(void **s) {
  (void)s;
  guard *g;
  struct sockaddr_in a = {.sin_family = AF_INET};
  OK(guard_open(&g, NULL, 1, 3));
  assert_int_equal(let_through(g, "192.0.2.7", S, 9), 3);
  unsigned through = 0;
  for (uint32_t i = 0; i < 300000; i++) { /* several times the table */
    a.sin_addr.s_addr = htonl(0x0B000000u + i);
    assert_true(guard_allows(g, (const struct sockaddr *)(const void *)&a, S + i)); /* new ones always may */
    if (i % 1000 == 0) through += allows(g, "192.0.2.7", S + i);
  }
  assert_int_equal(through, 0); /* his bucket is the emptiest of its set, and so the last to be given up */
  guard_close(g);
}

typedef struct crowd {
  guard *g;
  unsigned through;
} crowd;

static void *push(void *arg) {
  crowd *c = arg;
  for (int i = 0; i < 20000; i++) c->through += allows(c->g, i % 2 == 0 ? "192.0.2.1" : "192.0.2.2", 5 * S);
  return NULL;
}

static void threads_share_one_count(void **s) {
  (void)s;
  crowd all[3];
  pthread_t threads[3];
  guard *g;
  OK(guard_open(&g, NULL, 1, 1000));
  for (int i = 0; i < 3; i++) {
    all[i] = (crowd){g, 0};
    pthread_create(&threads[i], NULL, push, &all[i]);
  }
  unsigned through = 0;
  for (int i = 0; i < 3; i++) {
    pthread_join(threads[i], NULL);
    through += all[i].through;
  }
  assert_int_equal(through, 2000);
  guard_close(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(without_tokens_all_may_read_and_give_feedback_and_the_socket_everything),
                                     cmocka_unit_test(a_token_gives_the_role_of_its_line), cmocka_unit_test(a_wrong_file_is_refused_with_its_line_and_without_its_token),
                                     cmocka_unit_test(a_rate_lets_through_a_burst_and_then_what_it_says),
                                     cmocka_unit_test(ipv6_counts_by_network_ipv4_alike_however_it_is_written_and_unix_never),
                                     cmocka_unit_test(a_flood_of_addresses_forgives_nobody_who_stays), cmocka_unit_test(threads_share_one_count)};
  return RUN(tests);
}
