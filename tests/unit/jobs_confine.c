/* A confined process: what it needs works, what it must not do is refused or ends it. Each call is made in a child of its own, by its
 * bare number, so that no library stands in between; and once more from Lua that has got hold of all of C. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef EV_NONE /* elf.h's, which seccomp.h brings */
#include "support.h"

#include "../../runtime/jobs/jobs.h"

#define ALLOWED 0
#define KILLED 255 /* by SIGSYS */
static const char *const kinds[] = {"serve", "evaluate", "load"};
static int bell = -1;

typedef long call_fn(void);

/* In a child that is confined: ALLOWED, an errno, or KILLED. */
static int outcome(ev_confine_kind kind, call_fn *call) {
  int how;
  fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    if (ev_confine(kind, folder, NULL) != EV_OK) _exit(254);
    errno = 0;
    long result = call();
    _exit(result >= 0 ? ALLOWED : errno);
  }
  assert_int_equal(waitpid(pid, &how, 0), pid);
  if (WIFSIGNALED(how)) return WTERMSIG(how) == SIGSYS ? KILLED : -WTERMSIG(how);
  return WEXITSTATUS(how);
}

/* ---- What is asked ---------------------------------------------------------------------------------------*/
static long c_exec(void) { char *none[] = {NULL}; return execve("/bin/true", none, none); }
static long c_execat(void) { char *none[] = {NULL}; return syscall(SYS_execveat, AT_FDCWD, "/bin/true", none, none, 0); }
static long c_ptrace(void) { return syscall(SYS_ptrace, 16 /* ATTACH */, getppid(), 0, 0); }
static long c_read_other(void) { return syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0); }
static long c_write_other(void) { return syscall(SYS_process_vm_writev, getppid(), NULL, 0, NULL, 0, 0); }
static long c_socket(void) { return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); }
static long c_socket_unix(void) { return syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0); }
static long c_connect(void) { return syscall(SYS_connect, 2, NULL, 0); }
static long c_bind(void) { return syscall(SYS_bind, 2, NULL, 0); }
static long c_accept(void) { return syscall(SYS_accept4, 2, NULL, NULL, 0); }
static long c_sendmsg(void) { return syscall(SYS_sendmsg, 2, NULL, 0); }
static long c_mount(void) { return syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL); }
static long c_chroot(void) { return syscall(SYS_chroot, "/"); }
static long c_unshare(void) { return syscall(SYS_unshare, CLONE_NEWUSER); }
static long c_setns(void) { return syscall(SYS_setns, 0, 0); }
static long c_bpf(void) { return syscall(SYS_bpf, 0, NULL, 0); }
static long c_perf(void) { struct perf_event_attr a = {.size = sizeof a}; return syscall(SYS_perf_event_open, &a, 0, -1, -1, 0); }
static long c_userfault(void) { return syscall(SYS_userfaultfd, 1); }
static long c_uring(void) { return syscall(SYS_io_uring_setup, 1, NULL); }
static long c_keyctl(void) { return syscall(SYS_keyctl, 0, 0, 0, 0, 0); }
static long c_module(void) { return syscall(SYS_init_module, NULL, 0, ""); }
static long c_setuid(void) { return syscall(SYS_setuid, 0); }
static long c_setresgid(void) { return syscall(SYS_setresgid, -1, -1, -1); }
static long c_personality(void) { return syscall(SYS_personality, 0xffffffff); }
static long c_kill_parent(void) { return syscall(SYS_kill, getppid(), 0); }
static long c_tgkill_parent(void) { return syscall(SYS_tgkill, getppid(), getppid(), 0); }
static long c_fork(void) {
  long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) _exit(0);
  return pid;
}
static long c_clone_user(void) {
  long pid = syscall(SYS_clone, SIGCHLD | CLONE_NEWUSER, 0, 0, 0, 0);
  if (pid == 0) _exit(0);
  return pid;
}
static long c_clone3(void) { return syscall(SYS_clone3, NULL, 0); }
static void *nothing(void *p) { return p; }
static long c_thread(void) {
  pthread_t t;
  int error = pthread_create(&t, NULL, nothing, NULL);
  if (error != 0) { errno = error; return -1; }
  return pthread_join(t, NULL);
}
static long c_open_read(void) { return syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY); }
static long c_open_write(void) { return syscall(SYS_openat, AT_FDCWD, "/tmp/ev_confine_elsewhere", O_WRONLY | O_CREAT, 0600); }
static long write_there(const char *name) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT, 0600);
}
static long c_open_write_home(void) { return write_there("mine"); }
static long c_rename_home(void) {
  char from[128], to[128];
  if (write_there("from") < 0) return -1;
  snprintf(from, sizeof from, "%s/from", folder);
  snprintf(to, sizeof to, "%s/to", folder);
  return rename(from, to);
}
static long c_memfd(void) { return syscall(SYS_memfd_create, "x", 0); }
static long c_map_file(void) { return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, bell, 0) == MAP_FAILED ? -1 : 0; }
static long c_dumpable(void) { return prctl(PR_SET_DUMPABLE, 1); }
static long c_dup(void) { return dup(2); }
static long c_ioctl(void) { int n; return syscall(SYS_ioctl, 2, 0x541B /* FIONREAD */, &n); }
static long c_limit(void) { struct rlimit l = {1, 1}; return setrlimit(RLIMIT_CPU, &l); }

static const struct { const char *name; call_fn *call; int wanted[3]; } asked[] = {
    {"execve", c_exec, {KILLED, KILLED, KILLED}}, {"execveat", c_execat, {KILLED, KILLED, KILLED}},
    {"ptrace", c_ptrace, {KILLED, KILLED, KILLED}}, {"process_vm_readv", c_read_other, {KILLED, KILLED, KILLED}},
    {"process_vm_writev", c_write_other, {KILLED, KILLED, KILLED}}, {"socket", c_socket, {KILLED, KILLED, KILLED}},
    {"socket (Unix)", c_socket_unix, {KILLED, KILLED, KILLED}}, {"connect", c_connect, {KILLED, KILLED, KILLED}},
    {"bind", c_bind, {KILLED, KILLED, KILLED}}, {"accept4", c_accept, {KILLED, KILLED, KILLED}}, {"sendmsg", c_sendmsg, {KILLED, KILLED, KILLED}},
    {"mount", c_mount, {KILLED, KILLED, KILLED}}, {"chroot", c_chroot, {KILLED, KILLED, KILLED}}, {"unshare", c_unshare, {KILLED, KILLED, KILLED}},
    {"setns", c_setns, {KILLED, KILLED, KILLED}}, {"bpf", c_bpf, {KILLED, KILLED, KILLED}}, {"perf_event_open", c_perf, {KILLED, KILLED, KILLED}},
    {"userfaultfd", c_userfault, {KILLED, KILLED, KILLED}}, {"io_uring_setup", c_uring, {KILLED, KILLED, KILLED}},
    {"keyctl", c_keyctl, {KILLED, KILLED, KILLED}}, {"init_module", c_module, {KILLED, KILLED, KILLED}}, {"setuid", c_setuid, {KILLED, KILLED, KILLED}},
    {"setresgid", c_setresgid, {KILLED, KILLED, KILLED}}, {"personality", c_personality, {KILLED, KILLED, KILLED}},
    {"tgkill of another", c_tgkill_parent, {KILLED, KILLED, ALLOWED}}, {"kill of another", c_kill_parent, {KILLED, KILLED, ALLOWED}},
    {"fork", c_fork, {EPERM, EPERM, ALLOWED}}, {"a user namespace", c_clone_user, {EPERM, EPERM, EPERM}}, {"clone3", c_clone3, {ENOSYS, ENOSYS, ENOSYS}},
    {"a thread", c_thread, {EPERM, ALLOWED, ALLOWED}}, {"reading /etc/passwd", c_open_read, {EPERM, ALLOWED, ALLOWED}},
    {"writing in the folder", c_open_write_home, {EPERM, ALLOWED, ALLOWED}}, {"renaming in the folder", c_rename_home, {EPERM, ALLOWED, ALLOWED}},
    {"memfd_create", c_memfd, {EPERM, EPERM, EPERM}}, {"mapping a descriptor", c_map_file, {EPERM, ENODEV, ENODEV}},
    {"being dumpable again", c_dumpable, {EPERM, EPERM, ALLOWED}}, {"dup", c_dup, {EPERM, ALLOWED, ALLOWED}}, {"ioctl", c_ioctl, {EPERM, -1, -1}},
    {"a limit", c_limit, {EPERM, EPERM, ALLOWED}},
};

/* Kernels before 5.19, and those built without it, have no Landlock: there is nothing to test then, and the service says that it goes on without. */
static bool landlocked(void) { return syscall(444, NULL, 0, 1) >= 2; }

static void what_is_hostile_is_refused_or_kills(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
    for (int k = 0; k < 3; k++) {
      int wanted = asked[i].wanted[k];
      if (wanted < 0) continue; /* depends on what descriptor 2 is */
      /* With Landlock a signal out of the domain is refused before it is sent. */
      bool signals = k == EV_CONFINE_LOAD && (asked[i].call == c_kill_parent || asked[i].call == c_tgkill_parent);
      int got = outcome((ev_confine_kind)k, asked[i].call);
      if (signals && syscall(444, NULL, 0, 1) >= 6) wanted = EPERM;
      if (got != wanted) fail_msg("%s, %s: %d, not %d", kinds[k], asked[i].name, got, wanted);
    }
  }
}

static void the_calls_of_this_list_do_something_when_nobody_is_confined(void **state) {
  (void)state; /* that a socket, a file, a process can be had here at all: else their refusal above would show nothing */
  call_fn *const open_ones[] = {c_socket, c_socket_unix, c_open_read, c_open_write, c_kill_parent, c_fork, c_thread, c_memfd, c_dup};
  for (size_t i = 0; i < sizeof open_ones / sizeof *open_ones; i++) {
    int how;
    pid_t pid = fork();
    if (pid == 0) _exit(open_ones[i]() >= 0 ? 0 : 1);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) fail_msg("call %zu fails in a process that is not confined", i);
  }
  unlink("/tmp/ev_confine_elsewhere");
}

static void files_are_written_in_the_folder_only(void **state) {
  (void)state;
  if (!landlocked()) skip();
  assert_int_equal(outcome(EV_CONFINE_EVALUATE, c_open_write), EACCES);
  assert_int_equal(outcome(EV_CONFINE_LOAD, c_open_write), EACCES);
  assert_int_equal(access("/tmp/ev_confine_elsewhere", F_OK), -1);
}

/* As many a container has it: nobody sets a filter. */
static bool forbid_filters(void) {
  scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
  const struct scmp_arg_cmp set = SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP);
  return ctx != NULL && seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(seccomp), 0) == 0 &&
         seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prctl), 1, &set) == 0 && seccomp_load(ctx) == 0;
}

static void where_no_filter_can_be_set_it_is_said_and_the_rest_holds(void **state) {
  (void)state;
  int how;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    unsigned held = 0;
    if (!forbid_filters()) _exit(2);
    ev_confine_descriptors(NULL, 0);
    if (ev_confine(EV_CONFINE_SERVE, NULL, &held) != EV_EIO || strstr(ev_error(), "filter") == NULL || (held & EV_CONFINED_CALLS) != 0) _exit(3);
    if (c_open_read() >= 0 || c_socket() >= 0) _exit(4); /* there is no number for a descriptor */
    if (landlocked()) {
      if (held != EV_CONFINED_FILES) _exit(5);
      char *none[] = {NULL};
      if (execve("/bin/true", none, none) == 0 || errno != EACCES || unlink("/tmp/ev_confine_no_such") == 0) _exit(6);
    }
    _exit(0);
  }
  assert_int_equal(waitpid(pid, &how, 0), pid);
  if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) fail_msg("how %d", how);
}

static void landlock_and_the_filter_are_both_on(void **state) {
  (void)state;
  if (!landlocked()) skip();
  int how;
  pid_t pid = fork();
  if (pid == 0) {
    unsigned held = 0;
    _exit(ev_confine(EV_CONFINE_SERVE, NULL, &held) == EV_OK && held == (EV_CONFINED_CALLS | EV_CONFINED_FILES) ? 0 : 1);
  }
  assert_int_equal(waitpid(pid, &how, 0), pid);
  assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

/* ---- What a worker needs ---------------------------------------------------------------------------------*/
static volatile sig_atomic_t alarms;
static void on_alarm(int n) { alarms += n == SIGVTALRM; }

#define MUST(x) do { if (!(x)) return __LINE__; } while (0)

static int work(void) { /* 0, or the line that failed */
  uint64_t one = 1, got = 0;
  struct timespec t, short_while = {0, 1000000};
  uint32_t word = 0;
  char random[16];
  MUST(write(bell, &one, sizeof one) == sizeof one && read(bell, &got, sizeof got) == sizeof got && got == 1);
  MUST(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &short_while, NULL, 0) == -1 && errno == ETIMEDOUT);
  MUST(syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0) == 0);
  unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(code != MAP_FAILED && mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
  MUST(madvise(code, 4096, MADV_DONTNEED) == 0 && munmap(code, 4096) == 0);
  char *large = malloc(8 << 20);
  MUST(large != NULL);
  memset(large, 1, 8 << 20);
  large = realloc(large, 64 << 20);
  MUST(large != NULL && large[(8 << 20) - 1] == 1);
  free(large);
  MUST(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t) == 0 && syscall(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
  MUST(nanosleep(&short_while, NULL) == 0 && sched_yield() == 0 && getpid() == syscall(SYS_getpid) && gettid() == getpid());
  MUST(syscall(SYS_getrandom, random, sizeof random, 0) == sizeof random);
  struct sigaction act = {.sa_handler = on_alarm};
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGVTALRM};
  event._sigev_un._tid = gettid();
  timer_t timer;
  MUST(sigaction(SIGVTALRM, &act, NULL) == 0 && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  struct itimerspec soon = {.it_value = {0, 1000000}};
  MUST(timer_settime(timer, 0, &soon, NULL) == 0);
  for (int i = 0; i < 2000 && alarms == 0; i++) nanosleep(&short_while, NULL);
  MUST(alarms > 0 && timer_delete(timer) == 0);
  MUST(raise(SIGVTALRM) == 0 && alarms > 1); /* tgkill of itself */
  MUST(write(STDERR_FILENO, "", 0) == 0);
  return 0;
}

static void what_a_worker_needs_works(void **state) {
  (void)state;
  int how;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    ev_threads_set(1);
    ev_confine_descriptors(&bell, 1);
    if (ev_confine(EV_CONFINE_SERVE, NULL, NULL) != EV_OK) _exit(1);
    int line = work();
    _exit(line == 0 ? 0 : line < 256 ? line : 255);
  }
  assert_int_equal(waitpid(pid, &how, 0), pid);
  if (WIFSIGNALED(how)) fail_msg("signal %d", WTERMSIG(how));
  if (WEXITSTATUS(how) != 0) fail_msg("line %d", WEXITSTATUS(how));
}

static void descriptors_that_are_not_kept_are_closed_and_limits_let_none_be_opened(void **state) {
  (void)state;
  int how, others[3] = {open("/dev/null", O_RDONLY), eventfd(0, 0), open("/dev/zero", O_RDONLY)}, keep[2] = {others[1], bell};
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    ev_confine_descriptors(keep, 2);
    int open_ones = 0;
    for (int fd = 3; fd < 1024; fd++) open_ones += fcntl(fd, F_GETFD) >= 0;
    bool ok = open_ones == 2 && fcntl(others[1], F_GETFD) >= 0 && fcntl(bell, F_GETFD) >= 0 && fcntl(others[0], F_GETFD) < 0;
    ok = ok && fcntl(0, F_GETFD) >= 0 && fcntl(1, F_GETFD) >= 0 && fcntl(2, F_GETFD) >= 0;
    struct stat st, null;
    ok = ok && fstat(1, &st) == 0 && stat("/dev/null", &null) == 0 && st.st_rdev == null.st_rdev;
    if (!forbid_filters() || ev_confine(EV_CONFINE_SERVE, NULL, NULL) == EV_OK) ok = false; /* the limits alone */
    ok = ok && open("/dev/null", O_RDONLY) < 0 && dup(2) < 0 && errno == EMFILE && socket(AF_UNIX, SOCK_STREAM, 0) < 0 && prctl(PR_GET_DUMPABLE) == 0;
    _exit(ok ? 0 : 1);
  }
  assert_int_equal(waitpid(pid, &how, 0), pid);
  assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
  for (int i = 0; i < 3; i++) close(others[i]);
}

/* ---- A broken sandbox ------------------------------------------------------------------------------------*/
static int escape(const char *fn, const char *args) {
  int how;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    ev_host_options o = {.root = ".", .home = folder};
    ev_host *h;
    ev_buf out = {0};
    if (ev_host_new(&h, &o) != EV_OK || ev_host_call(h, "tests.planted.escape", "work", "1000", NULL) != EV_OK) _exit(200);
    ev_confine_descriptors(NULL, 0);
    if (ev_confine(EV_CONFINE_SERVE, NULL, NULL) != EV_OK) _exit(201);
    if (ev_host_call(h, "tests.planted.escape", fn, args, &out) != EV_OK) _exit(202);
    _exit(strcmp(fn, "work") == 0 ? (strcmp(out.data, "8999997") == 0 ? 0 : 203) : atoi(out.data));
  }
  assert_int_equal(waitpid(pid, &how, 0), pid);
  if (WIFSIGNALED(how)) return WTERMSIG(how) == SIGSYS ? KILLED : -WTERMSIG(how);
  return WEXITSTATUS(how);
}

static void lua_that_holds_all_of_c_gets_no_further(void **state) {
  (void)state;
  assert_int_equal(escape("work", "3000000"), 0); /* compiled after the fork, collected, right */
  assert_int_equal(escape("open", "\"/etc/passwd\""), EPERM);
  assert_int_equal(escape("fork", "1"), EPERM);
  assert_int_equal(escape("socket", "1"), KILLED);
  assert_int_equal(escape("exec", "\"/bin/true\""), KILLED);
}

/* ---- Evaluations -----------------------------------------------------------------------------------------*/
static ev_status job(void *ctx, size_t i, ev_buf *out) {
  (void)ctx;
  if (i == 1) c_socket();
  long result = i == 0 ? c_open_write_home() : i == 2 ? c_open_write() : c_thread();
  return ev_buf_printf(out, "%d", result >= 0 ? 0 : errno);
}

static char said[4][16];
static ev_status ended[4];
static ev_status note(void *ctx, const ev_job_result *r) {
  (void)ctx;
  ended[r->job] = r->status;
  snprintf(said[r->job], sizeof said[0], "%s", r->data);
  return EV_OK;
}

static void a_confined_job_computes_and_is_ended_by_what_it_may_not(void **state) {
  (void)state;
  ev_job_limits limits = {.timeout_s = 20, .confine_to = folder};
  assert_int_equal(ev_jobs_run(4, 1, &limits, job, note, NULL), EV_OK);
  assert_int_equal(ended[0], EV_OK);
  assert_string_equal(said[0], "0");
  assert_int_equal(ended[1], EV_EIO); /* killed by signal 31 */
  assert_string_equal(said[3], "0");
  assert_int_equal(ended[2], EV_OK);
  if (landlocked()) assert_int_equal(atoi(said[2]), EACCES);
}

static int begin(void **state) {
  bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return bell >= 0 ? make_folder(state) : 1;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_calls_of_this_list_do_something_when_nobody_is_confined),
      cmocka_unit_test(what_is_hostile_is_refused_or_kills),
      cmocka_unit_test(files_are_written_in_the_folder_only),
      cmocka_unit_test(where_no_filter_can_be_set_it_is_said_and_the_rest_holds),
      cmocka_unit_test(landlock_and_the_filter_are_both_on),
      cmocka_unit_test(what_a_worker_needs_works),
      cmocka_unit_test(descriptors_that_are_not_kept_are_closed_and_limits_let_none_be_opened),
      cmocka_unit_test(lua_that_holds_all_of_c_gets_no_further),
      cmocka_unit_test(a_confined_job_computes_and_is_ended_by_what_it_may_not),
  };
  return cmocka_run_group_tests(tests, begin, remove_folder);
}
