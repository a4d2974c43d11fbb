/*
 * An eventfd that ends a worker's wait. The thread that makes it owns the descriptor; the number may be given to one
 * waiting thread, which reads it but never closes it. The owner closes it after that thread has gone.
 */
#include "util.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct waker {
  struct handle handle;
  int fd;
};

static void close_waker(struct handle *handle) { close(((struct waker *)handle)->fd); }

napi_value waker_open(napi_env env, napi_callback_info info) {
  struct waker *waker = calloc(1, sizeof *waker);
  if (!waker) return throw_errno(env, ENOMEM, "calloc");
  waker->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (waker->fd < 0) {
    const int error = errno;
    free(waker);
    return throw_errno(env, error, "eventfd");
  }
  return handle_publish(env, &waker->handle, HANDLE_WAKER, close_waker, NULL);
}

napi_value waker_fd(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct waker *waker;
  if (!get_args(env, info, 1, args) || !(waker = handle_get(env, args[0], HANDLE_WAKER))) return NULL;
  return make_int(env, waker->fd);
}

napi_value waker_wake(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct waker *waker;
  if (!get_args(env, info, 1, args) || !(waker = handle_get(env, args[0], HANDLE_WAKER))) return NULL;
  /* EAGAIN: the count is full, so whoever waits is awake already. */
  eventfd_write(waker->fd, 1);
  return NULL;
}

/* (fd, timeoutMs) → 1 when woken, 0 after the timeout: for devices that have no descriptor to wait on. */
napi_value waker_wait(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct pollfd fd = {.events = POLLIN};
  eventfd_t count;
  if (!get_args(env, info, 2, args)) return NULL;
  fd.fd = get_int(env, args[0]);
  if (poll(&fd, 1, get_int(env, args[1])) <= 0) return make_int(env, 0);
  return make_int(env, eventfd_read(fd.fd, &count) == 0);
}
