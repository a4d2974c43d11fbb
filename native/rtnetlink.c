/*
 * What the kernel knows of links, addresses, routes, rules and neighbours (rtnetlink(7)): dumps, one route, and notices.
 *
 * Dumps come back as the kernel's messages, parsed in io/rtnetlink.ts; a route's answer is read here, since workers ask
 * in the packet's way. A monitor is drained by whoever owns it: a worker at its batch edge, or the main thread from its
 * event loop (`monitor_watch`). Sockets belong to the namespace of the thread that opened
 * them, or to the one that it named.
 */
#include "netlink.h"
#include "netns.h"
#include "route.h"
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

struct rtnetlink {
  struct handle handle;
  int fd;
  /* Of requests for change; dumps count from 1 each. */
  uint32_t sequence;
};

static void close_rtnetlink(struct handle *handle) { close(((struct rtnetlink *)handle)->fd); }

static int open_socket(uint32_t *groups, size_t count, int flags) {
  const struct sockaddr_nl local = {.nl_family = AF_NETLINK};
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE);
  int error = 0;
  if (fd < 0) return -1;
  if (bind(fd, (const struct sockaddr *)&local, sizeof local) < 0) error = errno;
  for (size_t i = 0; error == 0 && i < count; i++) {
    const int group = (int)groups[i];
    /* A group this kernel hasn't (nexthop, before 5.3) says nothing. */
    if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0 && errno != EINVAL) error = errno;
  }
  if (error == 0) return fd;
  close(fd);
  errno = error;
  return -1;
}

int route_socket(void) {
  const int yes = 1;
  const int fd = open_socket(NULL, 0, 0);
  if (fd >= 0) setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &yes, sizeof yes);
  return fd;
}

/* (namespace) → handle; '' = this thread's own namespace, else a file such as /run/netns/NAME */
napi_value rtnetlink_open(napi_env env, napi_callback_info info) {
  napi_value args[1];
  char path[MAX_PATH];
  struct rtnetlink *rt;
  const char *failed;
  int error = 0, home;
  if (!get_args(env, info, 1, args) || !get_text(env, args[0], path, sizeof path)) return NULL;
  rt = calloc(1, sizeof *rt);
  if (!rt) return throw_errno(env, ENOMEM, "calloc");
  failed = netns_enter(path, &home, &error);
  if (!failed) {
    rt->fd = route_socket();
    if (rt->fd < 0) error = errno, failed = "socket(NETLINK_ROUTE)";
    netns_leave(home);
  }
  if (failed) {
    free(rt);
    return throw_errno(env, error, failed);
  }
  return handle_publish(env, &rt->handle, HANDLE_RTNETLINK, close_rtnetlink, NULL);
}

/* (handle, message) → 0 or the errno that the kernel answers with. `message`: one request, header included. */
napi_value rtnetlink_request(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct rtnetlink *rt;
  uint8_t *message;
  size_t length;
  _Alignas(8) uint8_t answer[1024];
  if (!get_args(env, info, 2, args) || !(rt = handle_get(env, args[0], HANDLE_RTNETLINK)) ||
      !(message = get_bytes(env, args[1], &length)))
    return NULL;
  if (length < NLMSG_HDRLEN) return make_int(env, EINVAL);
  ((struct nlmsghdr *)message)->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
  ((struct nlmsghdr *)message)->nlmsg_seq = ++rt->sequence;
  if (send(rt->fd, message, length, 0) < 0) return make_int(env, errno);
  for (;;) {
    const struct nlmsghdr *reply = (struct nlmsghdr *)answer;
    const ssize_t n = recv(rt->fd, answer, sizeof answer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return make_int(env, errno);
    if (NLMSG_OK(reply, (size_t)n) && reply->nlmsg_seq == rt->sequence && reply->nlmsg_type == NLMSG_ERROR)
      return make_int(env, -((struct nlmsgerr *)NLMSG_DATA(reply))->error);
  }
}

/* ---- dumps ---- */

/* One pass of a dump into *out. Returns 0, errno, or EINTR when the tables changed meanwhile. */
static int dump_once(int fd, uint32_t sequence, uint16_t type, uint8_t family, uint8_t **out, size_t *used,
                     size_t *room) {
  _Alignas(8) uint8_t request[NLMSG_LENGTH(sizeof(struct ifinfomsg))] = {0};
  struct nlmsghdr *const header = (struct nlmsghdr *)request;
  const size_t body = type == RTM_GETLINK ? sizeof(struct ifinfomsg)
                      : type == RTM_GETADDR ? sizeof(struct ifaddrmsg)
                      : type == RTM_GETNEIGH ? sizeof(struct ndmsg)
                                             : sizeof(struct rtmsg);
  bool interrupted = false;
  *header = (struct nlmsghdr){.nlmsg_len = (uint32_t)NLMSG_LENGTH(body), .nlmsg_type = type,
                              .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = sequence};
  request[NLMSG_HDRLEN] = family;
  *used = 0;
  if (send(fd, request, header->nlmsg_len, 0) < 0) return errno;
  for (;;) {
    ssize_t length;
    if (*room - *used < 64 << 10) {
      uint8_t *more = realloc(*out, *room + (256 << 10));
      if (!more) return ENOMEM;
      *out = more;
      *room += 256 << 10;
    }
    length = recv(fd, *out + *used, *room - *used, 0);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return errno;
    {
      const struct nlmsghdr *message = (const struct nlmsghdr *)(*out + *used);
      size_t left = (size_t)length, kept = 0;
      if (message->nlmsg_seq != sequence) continue;
      for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
        if (message->nlmsg_flags & NLM_F_DUMP_INTR) interrupted = true;
        if (message->nlmsg_type == NLMSG_ERROR) return -((struct nlmsgerr *)NLMSG_DATA(message))->error;
        if (message->nlmsg_type == NLMSG_DONE) {
          *used += kept;
          return interrupted ? EINTR : 0;
        }
        kept += NLMSG_ALIGN(message->nlmsg_len);
      }
      *used += kept;
    }
  }
}

/* (handle, RTM_GET… type, family) → Uint8Array of the answer's messages */
napi_value rtnetlink_dump(napi_env env, napi_callback_info info) {
  napi_value args[3], buffer, array;
  struct rtnetlink *rt;
  uint8_t *out = NULL;
  size_t used = 0, room = 0;
  void *copy;
  int error = EINTR;
  if (!get_args(env, info, 3, args) || !(rt = handle_get(env, args[0], HANDLE_RTNETLINK))) return NULL;
  for (uint32_t attempt = 1; error == EINTR && attempt <= 10; attempt++)
    error = dump_once(rt->fd, attempt, (uint16_t)get_int(env, args[1]), (uint8_t)get_int(env, args[2]), &out, &used,
                      &room);
  if (error != 0) {
    free(out);
    return throw_errno(env, error, "rtnetlink dump");
  }
  if (napi_create_arraybuffer(env, used, &copy, &buffer) != napi_ok) {
    free(out);
    return throw_errno(env, ENOMEM, "napi_create_arraybuffer");
  }
  if (used > 0) memcpy(copy, out, used);
  free(out);
  return napi_create_typedarray(env, napi_uint8_array, used, buffer, 0, &array) == napi_ok ? array : NULL;
}

/* ---- one route ---- */

struct route_reply {
  int32_t mtu;
  bool mtu_locked;
  bool expires;
};

static void read_metrics(const uint8_t *at, const uint8_t *end, struct route_reply *reply) {
  const uint8_t *data;
  uint32_t size;
  uint16_t type;
  while (nl_next(&at, end, &type, &data, &size)) {
    if (size < 4 || data + size > end) continue;
    if (type == RTAX_MTU) reply->mtu = (int32_t)load32(data);
    if (type == RTAX_LOCK) reply->mtu_locked = load32(data) & 1u << RTAX_MTU;
  }
}

static void read_route(const struct nlmsghdr *message, int32_t *answer, struct route_reply *reply) {
  const struct rtmsg *route = NLMSG_DATA(message);
  const uint8_t *at = (const uint8_t *)RTM_RTA(route), *const end = (const uint8_t *)message + message->nlmsg_len;
  const uint8_t *data;
  uint32_t size;
  uint16_t type;
  answer[ANSWER_TYPE] = route->rtm_type;
  while (nl_next(&at, end, &type, &data, &size)) {
    if (data + size > end || size < 4) continue;
    switch (type) {
    case RTA_OIF: answer[ANSWER_OIF] = (int32_t)load32(data); break;
    case RTA_GATEWAY: answer[ANSWER_GATEWAY] = (int32_t)ntohl(load32(data)); break;
    case RTA_PREFSRC: answer[ANSWER_PREFSRC] = (int32_t)ntohl(load32(data)); break;
    case RTA_FLOW: answer[ANSWER_REALM] = (int32_t)load32(data); break;
    case RTA_METRICS: read_metrics(data, data + size, reply); break;
    case RTA_CACHEINFO:
      if (size >= sizeof(struct rta_cacheinfo)) reply->expires = ((const struct rta_cacheinfo *)data)->rta_expires != 0;
      break;
    }
  }
}

/* Asks once; returns errno. */
static int ask_once(int fd, const int32_t *question, uint32_t flags, int32_t *answer, struct route_reply *reply) {
  _Alignas(8) char buffer[256], text[2048];
  struct nlmsghdr *message = (struct nlmsghdr *)buffer;
  struct rtmsg *route = NLMSG_DATA(message);
  const uint32_t sequence = flags + 1;
  *message = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(sizeof *route), .nlmsg_type = RTM_GETROUTE,
                               .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = sequence};
  *route = (struct rtmsg){.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_tos = (uint8_t)question[QUESTION_TOS],
                          .rtm_flags = flags};
  nl_put_u32(message, RTA_DST, htonl((uint32_t)question[QUESTION_DST]));
  if (question[QUESTION_SRC] != 0) {
    route->rtm_src_len = 32;
    nl_put_u32(message, RTA_SRC, htonl((uint32_t)question[QUESTION_SRC]));
  }
  if (question[QUESTION_IIF] != 0) nl_put_u32(message, RTA_IIF, (uint32_t)question[QUESTION_IIF]);
  if (question[QUESTION_OIF] != 0) nl_put_u32(message, RTA_OIF, (uint32_t)question[QUESTION_OIF]);
  if (question[QUESTION_MARK] != 0) nl_put_u32(message, RTA_MARK, (uint32_t)question[QUESTION_MARK]);
  if (question[QUESTION_UID] != -1) nl_put_u32(message, RTA_UID, (uint32_t)question[QUESTION_UID]);
  /* The kernel accepts these three protocols here (rtm_getroute_parse_ip_proto); others are asked without. */
  if (question[QUESTION_PROTOCOL] == IPPROTO_TCP || question[QUESTION_PROTOCOL] == IPPROTO_UDP ||
      question[QUESTION_PROTOCOL] == IPPROTO_ICMP) {
    const uint8_t protocol = (uint8_t)question[QUESTION_PROTOCOL];
    nl_put(message, RTA_IP_PROTO, &protocol, sizeof protocol);
    if (protocol != IPPROTO_ICMP) {
      const uint16_t sport = htons((uint16_t)question[QUESTION_SPORT]), dport = htons((uint16_t)question[QUESTION_DPORT]);
      if (sport) nl_put(message, RTA_SPORT, &sport, sizeof sport);
      if (dport) nl_put(message, RTA_DPORT, &dport, sizeof dport);
    }
  }
  if (send(fd, message, message->nlmsg_len, 0) < 0) return errno;
  for (;;) {
    const struct nlmsghdr *got = (const struct nlmsghdr *)text;
    const ssize_t length = recv(fd, text, sizeof text, 0);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return errno;
    if (!NLMSG_OK(got, (size_t)length) || got->nlmsg_seq != sequence) continue;
    if (got->nlmsg_type == NLMSG_ERROR) return -((const struct nlmsgerr *)NLMSG_DATA(got))->error;
    if (got->nlmsg_type != RTM_NEWROUTE) return EPROTO;
    read_route(got, answer, reply);
    return 0;
  }
}

void route_ask(int fd, const int32_t *question, int32_t *answer) {
  struct route_reply reply = {0};
  memset(answer, 0, ANSWER_WORDS * sizeof *answer);
  answer[ANSWER_ERRNO] = ask_once(fd, question, 0, answer, &reply);
  if (answer[ANSWER_ERRNO] != 0) return;
  if (reply.expires && !reply.mtu_locked && question[QUESTION_IIF] != 0) {
    /*
     * A path MTU that the router learned as a host. Forwarding goes by the route's own (ip_dst_mtu_maybe_forward), which
     * only the matched route itself tells.
     */
    int32_t matched[ANSWER_WORDS];
    reply = (struct route_reply){0};
    if (ask_once(fd, question, RTM_F_FIB_MATCH, matched, &reply) != 0) reply.mtu = 0;
  }
  answer[ANSWER_MTU] = reply.mtu;
}

/* (handle, question, answer) */
napi_value rtnetlink_route_get(napi_env env, napi_callback_info info) {
  napi_value args[3];
  struct rtnetlink *rt;
  int32_t *question, *answer;
  size_t question_length, answer_length;
  if (!get_args(env, info, 3, args) || !(rt = handle_get(env, args[0], HANDLE_RTNETLINK)) ||
      !(question = get_words(env, args[1], &question_length)) || !(answer = get_words(env, args[2], &answer_length)))
    return NULL;
  if (question_length < QUESTION_WORDS || answer_length < ANSWER_WORDS) {
    napi_throw_range_error(env, NULL, "question or answer too short");
    return NULL;
  }
  route_ask(rt->fd, question, answer);
  return NULL;
}

/* ---- notices ---- */

/* Notice in io/rtnetlink.ts. */
enum { NOTICE_LINK = 1, NOTICE_ADDRESS = 2, NOTICE_ROUTE = 4, NOTICE_RULE = 8, NOTICE_NEXTHOP = 16, NOTICE_NETCONF = 32,
       NOTICE_OVERRUN = 64 };

struct watch;
struct monitor {
  struct handle handle;
  int fd;
  struct watch *watch;
};

/* Outlives its monitor until libuv has let go of it. */
struct watch {
  uv_poll_t poll;
  napi_env env;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
  struct monitor *monitor;
};

static int32_t notice_of(uint16_t type) {
  switch (type) {
  case RTM_NEWLINK: case RTM_DELLINK: return NOTICE_LINK;
  case RTM_NEWADDR: case RTM_DELADDR: return NOTICE_ADDRESS;
  case RTM_NEWROUTE: case RTM_DELROUTE: return NOTICE_ROUTE;
  case RTM_NEWRULE: case RTM_DELRULE: return NOTICE_RULE;
  case RTM_NEWNEXTHOP: case RTM_DELNEXTHOP: return NOTICE_NEXTHOP;
  case RTM_NEWNETCONF: case RTM_DELNETCONF: return NOTICE_NETCONF;
  default: return 0;
  }
}

static int32_t drain(int fd) {
  _Alignas(8) char buffer[32 << 10];
  int32_t notices = 0;
  for (;;) {
    const struct nlmsghdr *message = (const struct nlmsghdr *)buffer;
    const ssize_t length = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    size_t left = (size_t)length;
    if (length < 0 && errno == EINTR) continue;
    if (length < 0 && errno == ENOBUFS) {
      notices |= NOTICE_OVERRUN;
      continue;
    }
    if (length <= 0) return notices;
    for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) notices |= notice_of(message->nlmsg_type);
  }
}

static void on_watch_closed(uv_handle_t *handle) {
  struct watch *watch = handle->data;
  napi_remove_async_cleanup_hook(watch->cleanup);
  free(watch);
}

static void stop_watch(struct watch *watch) {
  if (!watch->monitor) return;
  watch->monitor->watch = NULL;
  watch->monitor = NULL;
  napi_delete_reference(watch->env, watch->callback);
  napi_async_destroy(watch->env, watch->context);
  uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

static void on_watch_cleanup(napi_async_cleanup_hook_handle handle, void *data) { stop_watch(data); }

static void close_monitor(struct handle *handle) {
  struct monitor *monitor = (struct monitor *)handle;
  if (monitor->watch) stop_watch(monitor->watch);
  close(monitor->fd);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  struct watch *watch = poll->data;
  napi_env env = watch->env;
  napi_handle_scope scope;
  napi_value callback, global, notices, error;
  bool pending;
  const int32_t bits = watch->monitor ? drain(watch->monitor->fd) : 0;
  if (bits == 0 || napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_get_reference_value(env, watch->callback, &callback);
  napi_get_global(env, &global);
  napi_create_int32(env, bits, &notices);
  napi_make_callback(env, watch->context, global, callback, 1, &notices, NULL);
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) {
    napi_get_and_clear_last_exception(env, &error);
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

/* () → handle of a socket that hears of links, addresses, routes, rules, nexthops and netconf (IPv4) */
napi_value monitor_open(napi_env env, napi_callback_info info) {
  uint32_t groups[] = {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_NEXTHOP,
                       RTNLGRP_IPV4_NETCONF};
  struct monitor *monitor = calloc(1, sizeof *monitor);
  if (!monitor) return throw_errno(env, ENOMEM, "calloc");
  monitor->fd = open_socket(groups, sizeof groups / sizeof groups[0], SOCK_NONBLOCK);
  if (monitor->fd < 0) {
    const int error = errno;
    free(monitor);
    return throw_errno(env, error, "socket(NETLINK_ROUTE)");
  }
  return handle_publish(env, &monitor->handle, HANDLE_MONITOR, close_monitor, NULL);
}

/* (handle) → NOTICE bits since the last call, without waiting */
napi_value monitor_drain(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct monitor *monitor;
  if (!get_args(env, info, 1, args) || !(monitor = handle_get(env, args[0], HANDLE_MONITOR))) return NULL;
  return make_int(env, drain(monitor->fd));
}

/* (handle, (notices) => void): calls back from the event loop at each burst; doesn't keep the process alive. */
napi_value monitor_watch(napi_env env, napi_callback_info info) {
  napi_value args[2], name;
  struct monitor *monitor;
  struct watch *watch;
  uv_loop_t *loop;
  int error;
  if (!get_args(env, info, 2, args) || !(monitor = handle_get(env, args[0], HANDLE_MONITOR))) return NULL;
  if (monitor->watch) {
    napi_throw_error(env, NULL, "the monitor is watched already");
    return NULL;
  }
  watch = calloc(1, sizeof *watch);
  if (!watch) return throw_errno(env, ENOMEM, "calloc");
  watch->env = env;
  napi_create_string_utf8(env, "hutter:monitor", NAPI_AUTO_LENGTH, &name);
  if (napi_get_uv_event_loop(env, &loop) != napi_ok || napi_create_reference(env, args[1], 1, &watch->callback) != napi_ok ||
      napi_async_init(env, NULL, name, &watch->context) != napi_ok) {
    free(watch);
    napi_throw_error(env, NULL, "monitor: no event loop");
    return NULL;
  }
  if ((error = uv_poll_init(loop, &watch->poll, monitor->fd)) != 0) {
    napi_delete_reference(env, watch->callback);
    napi_async_destroy(env, watch->context);
    free(watch);
    return throw_errno(env, -error, "uv_poll_init");
  }
  watch->poll.data = watch;
  watch->monitor = monitor;
  monitor->watch = watch;
  napi_add_async_cleanup_hook(env, on_watch_cleanup, watch, &watch->cleanup);
  uv_poll_start(&watch->poll, UV_READABLE, on_readable);
  uv_unref((uv_handle_t *)&watch->poll);
  return NULL;
}

/* (ifindex) → name, or "" when there is none */
napi_value if_name(napi_env env, napi_callback_info info) {
  napi_value args[1], result;
  char name[IF_NAMESIZE] = "";
  if (!get_args(env, info, 1, args)) return NULL;
  if (!if_indextoname((unsigned)get_int(env, args[0]), name)) name[0] = '\0';
  return napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &result) == napi_ok ? result : NULL;
}
