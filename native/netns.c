#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

const char *netns_enter(const char *path, int *home, int *error) {
  int there;
  *home = -1;
  if (*path == '\0') return NULL;
  there = open(path, O_RDONLY | O_CLOEXEC);
  if (there < 0) return *error = errno, "open(namespace)";
  *home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (*home < 0) {
    *error = errno;
    close(there);
    return "open(/proc/thread-self/ns/net)";
  }
  if (setns(there, CLONE_NEWNET) < 0) {
    *error = errno;
    close(there);
    close(*home);
    return "setns";
  }
  close(there);
  return NULL;
}

void netns_leave(int home) {
  if (home < 0) return;
  if (setns(home, CLONE_NEWNET) < 0) abort();
  close(home);
}
