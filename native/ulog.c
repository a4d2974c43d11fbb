/*
 * A netlink socket that speaks to other sockets of the log subsystem, as the kernel does to those who asked for a group: NFLOG's
 * messages, made in control/nflog.ts. Needs CAP_NET_ADMIN.
 */
#include "util.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct ulog {
  struct handle handle;
  int fd;
};

static void close_ulog(struct handle *handle) { close(((struct ulog *)handle)->fd); }

napi_value ulog_open(napi_env env, napi_callback_info info) {
  struct ulog *ulog = calloc(1, sizeof *ulog);
  if (!ulog) return throw_errno(env, ENOMEM, "calloc");
  ulog->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
  if (ulog->fd < 0) {
    const int error = errno;
    free(ulog);
    return throw_errno(env, error, "socket(NETLINK_NETFILTER)");
  }
  return handle_publish(env, &ulog->handle, HANDLE_ULOG, close_ulog, NULL);
}

/* (handle, portid, message) → 0 or errno: ECONNREFUSED when nobody is there, EAGAIN when it doesn't keep up. */
napi_value ulog_send(napi_env env, napi_callback_info info) {
  napi_value args[3];
  struct ulog *ulog;
  struct sockaddr_nl to = {.nl_family = AF_NETLINK};
  size_t length;
  const uint8_t *message;
  if (!get_args(env, info, 3, args) || !(ulog = handle_get(env, args[0], HANDLE_ULOG))) return NULL;
  if (!(message = get_bytes(env, args[2], &length))) return NULL;
  to.nl_pid = (uint32_t)get_int(env, args[1]);
  const ssize_t sent = sendto(ulog->fd, message, length, 0, (const struct sockaddr *)&to, sizeof to);
  return make_int(env, sent < 0 ? errno : 0);
}
