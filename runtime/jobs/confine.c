/* confine.c - a process gives up what it will not need, so that whoever takes it over has not got it either.
 *
 * The filter names what is allowed; everything else is refused with EPERM, which libraries bear, and what only an attacker asks for
 * kills. Landlock stands behind it: the filter sees a path's address and not the path. Rejected: a filter that lets workers open files
 * for their snapshots of learning state; another process writes them (team.c). Its calls are numbers of libseccomp, so that the same
 * list holds for every processor; those that one has not got are passed over.
 *
 * Landlock's structures and numbers are written out here: kernels have more of it than the headers of many a distribution. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#undef EV_NONE /* elf.h's, which seccomp.h brings */
#include "jobs.h"

/* ---- Calls -----------------------------------------------------------------------------------------------*/
#define CALL(name) SCMP_SYS(name)

/* Memory, clocks, waiting, signals to oneself, and descriptors that are open. mmap, tgkill and prlimit64 depend on their arguments. */
static const int basic[] = {
    CALL(read), CALL(write), CALL(writev), CALL(close), CALL(futex), CALL(sched_yield), CALL(exit), CALL(exit_group), CALL(restart_syscall),
    CALL(munmap), CALL(mremap), CALL(mprotect), CALL(madvise), CALL(brk),
    CALL(clock_gettime), CALL(clock_getres), CALL(clock_nanosleep), CALL(nanosleep), CALL(gettimeofday), CALL(time), CALL(times), CALL(getrusage),
    CALL(timer_create), CALL(timer_settime), CALL(timer_gettime), CALL(timer_getoverrun), CALL(timer_delete),
    CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(rt_sigpending), CALL(sigaltstack),
    CALL(getpid), CALL(gettid), CALL(getppid), CALL(getrandom), CALL(getcpu), CALL(sched_getaffinity), CALL(rseq), CALL(membarrier), CALL(sysinfo), CALL(uname), CALL(getrlimit),
};

static const int of_files[] = {
    CALL(open), CALL(openat), CALL(access), CALL(faccessat), CALL(faccessat2), CALL(stat), CALL(lstat), CALL(fstat), CALL(newfstatat), CALL(statx),
    CALL(statfs), CALL(fstatfs), CALL(readlink), CALL(readlinkat), CALL(getcwd), CALL(getdents64), CALL(lseek), CALL(pread64), CALL(pwrite64), CALL(readv), CALL(preadv), CALL(pwritev),
    CALL(fsync), CALL(fdatasync), CALL(sync_file_range), CALL(ftruncate), CALL(fallocate), CALL(fadvise64), CALL(flock), CALL(fcntl), CALL(dup), CALL(dup2), CALL(dup3), CALL(pipe), CALL(pipe2),
    CALL(rename), CALL(renameat), CALL(renameat2), CALL(unlink), CALL(unlinkat), CALL(mkdir), CALL(mkdirat), CALL(rmdir), CALL(link), CALL(linkat), CALL(umask), CALL(fchmod), CALL(utimensat), CALL(msync), CALL(mincore), CALL(mlock),
    CALL(poll), CALL(ppoll), CALL(getuid), CALL(geteuid), CALL(getgid), CALL(getegid), CALL(getpriority),
    CALL(set_robust_list), CALL(set_tid_address), CALL(sched_getparam), CALL(sched_getscheduler), CALL(setitimer),
};

static const int of_processes[] = {
    CALL(fork), CALL(wait4), CALL(waitid), CALL(kill), CALL(tgkill), CALL(setpriority), CALL(setrlimit), CALL(signalfd4), CALL(close_range), CALL(getpgrp), CALL(getpgid), CALL(setpgid),
    CALL(sendto), CALL(recvfrom), /* on the socket to the supervisor, which is open */
    CALL(seccomp), CALL(landlock_create_ruleset), CALL(landlock_add_rule), CALL(landlock_restrict_self), /* more of the same can be given up */
};

static const int hostile[] = {
    CALL(execve), CALL(execveat), CALL(ptrace), CALL(process_vm_readv), CALL(process_vm_writev), CALL(process_madvise), CALL(kcmp), CALL(pidfd_open), CALL(pidfd_getfd), CALL(pidfd_send_signal),
    CALL(socket), CALL(socketpair), CALL(connect), CALL(bind), CALL(listen), CALL(accept), CALL(accept4), CALL(sendmsg), CALL(sendmmsg),
    CALL(mount), CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(move_mount), CALL(open_tree), CALL(fsopen), CALL(fsconfig), CALL(fsmount), CALL(fspick), CALL(mount_setattr),
    CALL(unshare), CALL(setns), CALL(personality), CALL(bpf), CALL(perf_event_open), CALL(userfaultfd), CALL(io_uring_setup), CALL(io_uring_enter), CALL(io_uring_register), CALL(io_setup),
    CALL(keyctl), CALL(add_key), CALL(request_key), CALL(init_module), CALL(finit_module), CALL(delete_module), CALL(kexec_load), CALL(kexec_file_load), CALL(reboot), CALL(swapon), CALL(swapoff),
    CALL(setuid), CALL(setgid), CALL(setreuid), CALL(setregid), CALL(setresuid), CALL(setresgid), CALL(setfsuid), CALL(setfsgid), CALL(setgroups), CALL(capset),
    CALL(open_by_handle_at), CALL(name_to_handle_at), CALL(mknod), CALL(mknodat), CALL(iopl), CALL(ioperm), CALL(modify_ldt), CALL(acct), CALL(quotactl), CALL(syslog),
    CALL(settimeofday), CALL(clock_settime), CALL(adjtimex), CALL(clock_adjtime), CALL(sethostname), CALL(setdomainname), CALL(vhangup), CALL(tkill), CALL(rt_sigqueueinfo), CALL(rt_tgsigqueueinfo),
};
#define N(list) (sizeof(list) / sizeof *(list))

typedef struct filter {
  scmp_filter_ctx ctx;
  int error; /* the first one; 0: none */
} filter;

static void rule(filter *f, uint32_t action, int call, unsigned n_args, const struct scmp_arg_cmp *args) {
  if (f->error != 0 || call == __NR_SCMP_ERROR) return;
  int error = seccomp_rule_add_array(f->ctx, action, call, n_args, args);
  if (error != 0 && error != -EDOM && error != -EOPNOTSUPP) f->error = error; /* those two: no such call on this processor */
}

static void rules(filter *f, uint32_t action, const int *calls, size_t n) {
  for (size_t i = 0; i < n; i++) rule(f, action, calls[i], 0, NULL);
}

static void allow_if(filter *f, int call, struct scmp_arg_cmp arg) { rule(f, SCMP_ACT_ALLOW, call, 1, &arg); }

#define NAMESPACES 0x7E020000u /* CLONE_NEW…, all of them */

static void with_arguments(filter *f, ev_confine_kind kind) {
  if (kind != EV_CONFINE_LOAD) {
    const scmp_datum_t me = (scmp_datum_t)getpid();
    const struct scmp_arg_cmp other = SCMP_A0(SCMP_CMP_NE, me);
    allow_if(f, CALL(tgkill), SCMP_A0(SCMP_CMP_EQ, me)); /* raise, abort */
    rule(f, SCMP_ACT_KILL_PROCESS, CALL(tgkill), 1, &other);
  }
  rule(f, SCMP_ACT_ERRNO(ENOSYS), CALL(clone3), 0, NULL); /* its flags lie in memory; libraries turn to clone */
  if (kind == EV_CONFINE_SERVE) {
    const struct scmp_arg_cmp ask[] = {SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0)};
    rule(f, SCMP_ACT_ALLOW, CALL(prlimit64), 2, ask);
    allow_if(f, CALL(mmap), SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
    rule(f, SCMP_ACT_KILL_PROCESS, CALL(kill), 0, NULL);
    return;
  }
  rule(f, SCMP_ACT_ALLOW, CALL(mmap), 0, NULL);
  allow_if(f, CALL(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
  if (kind == EV_CONFINE_EVALUATE) {
    const struct scmp_arg_cmp ask[] = {SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0)};
    rule(f, SCMP_ACT_ALLOW, CALL(prlimit64), 2, ask);
    rule(f, SCMP_ACT_KILL_PROCESS, CALL(kill), 0, NULL);
    allow_if(f, CALL(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_VM | NAMESPACES, CLONE_THREAD | CLONE_VM));
    return;
  }
  allow_if(f, CALL(prlimit64), SCMP_A0(SCMP_CMP_EQ, 0)); /* its own */
  allow_if(f, CALL(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, NAMESPACES, 0));
  static const int its_own[] = {PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_GET_SECCOMP, PR_SET_DUMPABLE};
  for (size_t i = 0; i < N(its_own); i++) allow_if(f, CALL(prctl), SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)its_own[i]));
}

static ev_status filter_calls(ev_confine_kind kind) {
  filter f = {.ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM))};
  if (f.ctx == NULL) return ev_fail(EV_ENOMEM, "no memory for a system-call filter");
  seccomp_attr_set(f.ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  seccomp_attr_set(f.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: some 8 comparisons a call */
  rules(&f, SCMP_ACT_ALLOW, basic, N(basic));
  if (kind != EV_CONFINE_SERVE) rules(&f, SCMP_ACT_ALLOW, of_files, N(of_files));
  if (kind == EV_CONFINE_LOAD) rules(&f, SCMP_ACT_ALLOW, of_processes, N(of_processes));
  with_arguments(&f, kind);
  rules(&f, SCMP_ACT_KILL_PROCESS, hostile, N(hostile));
  if (f.error == 0) f.error = seccomp_load(f.ctx);
  seccomp_release(f.ctx);
  return f.error == 0 ? EV_OK : ev_fail(EV_EIO, "no system-call filter can be set here: %s", strerror(-f.error));
}

/* ---- Files (Landlock) ------------------------------------------------------------------------------------*/
typedef struct land_ruleset {
  uint64_t fs, net, scoped;
} land_ruleset;

typedef struct land_path { /* the kernel's is packed: 12 bytes */
  uint64_t allowed;
  int32_t fd;
} __attribute__((packed)) land_path;

#define CREATE_RULESET 444 /* of every processor */
#define ADD_RULE 445
#define RESTRICT_SELF 446
#define FS_EXECUTE 1u
#define FS_WRITE_FILE 2u
#define FS_READ 0xCu        /* files, folders */
#define FS_MAKE_REMOVE 0x1FF0u
#define FS_MAKE_ODD 0x0E40u /* of these: devices, sockets, pipes */
#define FS_REFER 0x2000u    /* version 2 */
#define FS_TRUNCATE 0x4000u /* version 3 */
#define FS_DEVICES 0x8000u  /* ioctl; version 5 */
#define NET_TCP 3u          /* version 4 */
#define SCOPE 3u            /* abstract sockets and signals; version 6 */

static bool allow_path(int ruleset, const char *path, uint64_t allowed) {
  land_path rule_of = {.allowed = allowed, .fd = open(path, O_PATH | O_CLOEXEC)};
  if (rule_of.fd < 0) return false;
  bool ok = syscall(ADD_RULE, ruleset, 1, &rule_of, 0) == 0;
  close(rule_of.fd);
  return ok;
}

static bool bind_files(ev_confine_kind kind, const char *writable) {
  long version = syscall(CREATE_RULESET, NULL, 0, 1);
  if (version < 2) return false; /* the first one lets nobody move a file to another folder */
  uint64_t changes = FS_WRITE_FILE | FS_MAKE_REMOVE | FS_REFER | (version >= 3 ? FS_TRUNCATE : 0);
  land_ruleset r = {.fs = FS_EXECUTE | changes | (kind == EV_CONFINE_SERVE ? FS_READ : 0) | (version >= 5 ? FS_DEVICES : 0),
                    .net = version >= 4 ? NET_TCP : 0, .scoped = version >= 6 ? SCOPE : 0};
  int ruleset = (int)syscall(CREATE_RULESET, &r, version >= 6 ? sizeof r : version >= 4 ? 2 * sizeof r.fs : sizeof r.fs, 0);
  if (ruleset < 0) return false;
  bool ok = true;
  if (kind != EV_CONFINE_SERVE) {
    if (writable != NULL) ok = allow_path(ruleset, writable, changes & ~(uint64_t)FS_MAKE_ODD);
    allow_path(ruleset, "/dev/null", FS_WRITE_FILE);
  }
  ok = ok && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(RESTRICT_SELF, ruleset, 0) == 0;
  close(ruleset);
  return ok;
}

/* Limits are the poorest fence, but stand where nothing else does. */
static void limit_all(void) {
  static const struct rlimit none = {0, 0};
  setrlimit(RLIMIT_NOFILE, &none); /* no number for a new descriptor */
  setrlimit(RLIMIT_NPROC, &none);
  setrlimit(RLIMIT_CORE, &none);
  setrlimit(RLIMIT_MSGQUEUE, &none);
  prctl(PR_SET_DUMPABLE, 0); /* nor a core into a pipe, which the limit does not stop */
}

ev_status ev_confine(ev_confine_kind kind, const char *writable, unsigned *held) {
  unsigned on = bind_files(kind, writable) ? EV_CONFINED_FILES : 0; /* in this order: each lets nobody ask for the ones before */
  if (kind == EV_CONFINE_SERVE) limit_all();
  ev_status status = filter_calls(kind);
  if (status == EV_OK) on |= EV_CONFINED_CALLS;
  if (held != NULL) *held = on;
  return status;
}

/* ---- Descriptors -----------------------------------------------------------------------------------------*/
static void close_between(unsigned first, unsigned last) {
  if (first > last || close_range(first, last, 0) == 0) return;
  for (unsigned fd = first; fd <= last && fd < 65536; fd++) close((int)fd); /* a kernel before 5.9 */
}

void ev_confine_descriptors(const int *keep, size_t n_keep) {
  int null = open("/dev/null", O_RDWR);
  if (null >= 0) {
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    if (null > STDERR_FILENO) close(null);
  }
  for (int from = STDERR_FILENO + 1;;) { /* the gaps between those that stay */
    int next = -1;
    for (size_t i = 0; i < n_keep; i++)
      if (keep[i] >= from && (next < 0 || keep[i] < next)) next = keep[i];
    close_between((unsigned)from, next < 0 ? ~0u : (unsigned)next - 1);
    if (next < 0) break;
    from = next + 1;
  }
}
