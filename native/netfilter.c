/*
 * A netlink socket of the netfilter subsystems. `netfilterSend` speaks to other sockets, as the kernel does to those who asked for a
 * log group: NFLOG's messages (control/nflog.ts). `netfilterAsk` asks the kernel and waits for its answer, which comes
 * before the request's system call returns: the sets of ipset (io/ipset.ts). Messages are made there. Needs CAP_NET_ADMIN.
 */
#include "util.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_SIZE = 8192 };

struct netfilter {
  struct handle handle;
  int fd;
  uint32_t sequence;
};

static void close_netfilter(struct handle *handle) { close(((struct netfilter *)handle)->fd); }

napi_value netfilter_open(napi_env env, napi_callback_info info) {
  struct netfilter *netfilter = calloc(1, sizeof *netfilter);
  if (!netfilter) return throw_errno(env, ENOMEM, "calloc");
  netfilter->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
  if (netfilter->fd < 0) {
    const int error = errno;
    free(netfilter);
    return throw_errno(env, error, "socket(NETLINK_NETFILTER)");
  }
  return handle_publish(env, &netfilter->handle, HANDLE_NETFILTER, close_netfilter, NULL);
}

/* Returns 0 or errno: ECONNREFUSED when nobody has that address, EAGAIN when it doesn't keep up. */
static int send_to(const struct netfilter *netfilter, uint32_t portid, const uint8_t *message, size_t length) {
  const struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_pid = portid};
  return sendto(netfilter->fd, message, length, 0, (const struct sockaddr *)&to, sizeof to) < 0 ? errno : 0;
}

/* (handle, portid, message) → 0 or errno. */
napi_value netfilter_send(napi_env env, napi_callback_info info) {
  napi_value args[3];
  struct netfilter *netfilter;
  size_t length;
  const uint8_t *message;
  if (!get_args(env, info, 3, args) || !(netfilter = handle_get(env, args[0], HANDLE_NETFILTER))) return NULL;
  if (!(message = get_bytes(env, args[2], &length))) return NULL;
  return make_int(env, send_to(netfilter, (uint32_t)get_int(env, args[1]), message, length));
}

/* (handle, request, length, answer) → bytes of an answer, copied as far as there is room; 0 = done; −error. */
napi_value netfilter_ask(napi_env env, napi_callback_info info) {
  napi_value args[4];
  struct netfilter *netfilter;
  struct nlmsghdr header;
  struct nlmsgerr outcome;
  uint8_t buffer[ANSWER_SIZE];
  size_t room, size;
  uint8_t *request, *answer;
  if (!get_args(env, info, 4, args) || !(netfilter = handle_get(env, args[0], HANDLE_NETFILTER))) return NULL;
  const size_t length = (size_t)get_int(env, args[2]);
  if (!(request = get_bytes(env, args[1], &size)) || !(answer = get_bytes(env, args[3], &room))) return NULL;
  if (length < sizeof header || length > size) return make_int(env, -EINVAL);
  memcpy(&header, request, sizeof header);
  header.nlmsg_seq = ++netfilter->sequence;
  memcpy(request, &header, sizeof header);
  const int error = send_to(netfilter, 0, request, length);
  if (error) return make_int(env, -error);
  for (;;) {
    const ssize_t received = recv(netfilter->fd, buffer, sizeof buffer, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received < (ssize_t)sizeof header) return make_int(env, received < 0 ? -errno : -EBADMSG);
    memcpy(&header, buffer, sizeof header);
    /* What is left of a question whose answer was not waited for. */
    if (header.nlmsg_seq != netfilter->sequence) continue;
    if (header.nlmsg_type == NLMSG_ERROR) {
      if (received < (ssize_t)(NLMSG_HDRLEN + sizeof outcome)) return make_int(env, -EBADMSG);
      memcpy(&outcome, buffer + NLMSG_HDRLEN, sizeof outcome);
      return make_int(env, outcome.error);
    }
    memcpy(answer, buffer, (size_t)received < room ? (size_t)received : room);
    return make_int(env, (int32_t)received);
  }
}
