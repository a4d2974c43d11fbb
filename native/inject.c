/*
 * Sending packets of the router's own: a raw socket with IP_HDRINCL, the mark set so that the diversion lets them by.
 *
 * The route is asked for with the packet's own source and TOS (IP_PKTINFO, IP_TOS), as the kernel does for what it sends
 * itself; where the caller names a next hop that is asked for instead, as by nf_dup_ipv4.c (with IP_HDRINCL the kernel
 * takes the address in sendmsg() for known, whatever the header says). A packet longer than the device's MTU is refused by raw sockets (EMSGSIZE): it is fragmented here (RFC 791
 * §3.2), unless it says "don't fragment". IP_NODEFRAG keeps the kernel from putting the fragments together again.
 */
#include "netlink.h"
#include "route.h"
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MIN_HEADER = 20, MAX_HEADER = 60, MAX_PACKET = 65535, FRAGMENT_UNIT = 8, MIN_MTU = 68 };

struct inject {
  struct handle handle;
  int fd;
  int route_fd;
  uint32_t mark;
  uint16_t id;
  uint8_t *fragment;
};

static void close_inject(struct handle *handle) {
  struct inject *inject = (struct inject *)handle;
  if (inject->fd >= 0) close(inject->fd);
  if (inject->route_fd >= 0) close(inject->route_fd);
  inject->fd = inject->route_fd = -1;
}

static void release_inject(struct handle *handle) { free(((struct inject *)handle)->fragment); }

napi_value inject_open(napi_env env, napi_callback_info info) {
  const int yes = 1;
  const char *failed = NULL;
  struct inject *inject = calloc(1, sizeof *inject);
  int error = 0;
  if (!inject) return throw_errno(env, ENOMEM, "calloc");
  inject->fd = inject->route_fd = -1;
  if (!(inject->fragment = malloc(MAX_PACKET)))
    failed = "malloc", error = ENOMEM;
  else if ((inject->fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)) < 0)
    failed = "socket(SOCK_RAW)", error = errno;
  else if (setsockopt(inject->fd, IPPROTO_IP, IP_HDRINCL, &yes, sizeof yes) < 0 ||
           setsockopt(inject->fd, IPPROTO_IP, IP_NODEFRAG, &yes, sizeof yes) < 0 ||
           setsockopt(inject->fd, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes) < 0)
    failed = "setsockopt(IP_HDRINCL)", error = errno;
  else if ((inject->route_fd = route_socket()) < 0)
    failed = "socket(NETLINK_ROUTE)", error = errno;
  if (failed) {
    close_inject(&inject->handle);
    release_inject(&inject->handle);
    free(inject);
    return throw_errno(env, error, failed);
  }
  if (getrandom(&inject->id, sizeof inject->id, GRND_NONBLOCK) < 0) inject->id = (uint16_t)(uintptr_t)inject;
  return handle_publish(env, &inject->handle, HANDLE_INJECT, close_inject, release_inject);
}

/* `via`: the next hop in network order, 0 = the packet's own destination; `oif`: with it, the interface, 0 = any. Returns 0 or errno. */
static int send_packet(struct inject *inject, const uint8_t *packet, size_t length, uint32_t via, int oif) {
  struct sockaddr_in to = {.sin_family = AF_INET};
  struct iovec iov = {(void *)packet, length};
  union {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1,
                           .msg_control = &control, .msg_controllen = CMSG_SPACE(sizeof(int))};
  struct cmsghdr *part = CMSG_FIRSTHDR(&message);
  const int tos = packet[1];
  const uint8_t first = packet[12];

  memcpy(&to.sin_addr, via ? (const uint8_t *)&via : packet + 16, sizeof to.sin_addr);
  *part = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof tos), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_TOS};
  memcpy(CMSG_DATA(part), &tos, sizeof tos);
  /* A source that no route by a wire may be asked for (0/8, 127/8, multicast, reserved) is left out of the question. */
  if (via ? oif != 0 : first != 0 && first != 127 && first < 224) {
    struct in_pktinfo source = {.ipi_ifindex = oif};
    if (!via) memcpy(&source.ipi_spec_dst, packet + 12, sizeof source.ipi_spec_dst);
    message.msg_controllen = sizeof control.bytes;
    part = CMSG_NXTHDR(&message, part);
    *part = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof source), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO};
    memcpy(CMSG_DATA(part), &source, sizeof source);
  }
  for (;;) {
    if (sendmsg(inject->fd, &message, 0) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

/* The MTU a packet must fit: the smaller of the route's and the device's. 0: not known. */
static uint32_t mtu_for(struct inject *inject, const uint8_t *packet) {
  int32_t question[QUESTION_WORDS] = {0}, answer[ANSWER_WORDS] = {0};
  struct ifreq request = {0};
  uint32_t mtu = 0;
  question[QUESTION_DST] = (int32_t)ntohl(load32(packet + 16));
  question[QUESTION_SRC] = (int32_t)ntohl(load32(packet + 12));
  question[QUESTION_MARK] = (int32_t)inject->mark;
  question[QUESTION_TOS] = packet[1];
  question[QUESTION_UID] = -1;
  route_ask(inject->route_fd, question, answer);
  if (answer[ANSWER_ERRNO] != 0) {
    /* A source that isn't the router's own (a reset in a server's name) can't be asked for. */
    question[QUESTION_SRC] = 0;
    route_ask(inject->route_fd, question, answer);
    if (answer[ANSWER_ERRNO] != 0) return 0;
  }
  if (if_indextoname((unsigned)answer[ANSWER_OIF], request.ifr_name) &&
      ioctl(inject->fd, SIOCGIFMTU, &request) == 0)
    mtu = (uint32_t)request.ifr_mtu;
  if (answer[ANSWER_MTU] != 0 && (uint32_t)answer[ANSWER_MTU] < mtu) mtu = (uint32_t)answer[ANSWER_MTU];
  return mtu;
}

/* Copies the options that every fragment repeats (copied flag, RFC 791 §3.1); returns the header's length. */
static size_t copy_header(uint8_t *to, const uint8_t *from, size_t header) {
  size_t length = MIN_HEADER;
  memcpy(to, from, MIN_HEADER);
  for (size_t at = MIN_HEADER; at < header;) {
    const uint8_t option = from[at];
    size_t size;
    if (option == IPOPT_EOL) break;
    size = option == IPOPT_NOP ? 1 : at + 1 < header ? from[at + 1] : 0;
    if (size == 0 || (option != IPOPT_NOP && size < 2) || at + size > header) break;
    if (option != IPOPT_NOP && (option & IPOPT_COPY)) {
      memcpy(to + length, from + at, size);
      length += size;
    }
    at += size;
  }
  for (; length % 4 != 0; length++) to[length] = IPOPT_EOL;
  to[0] = (uint8_t)(0x40 | length / 4);
  return length;
}

static int send_fragments(struct inject *inject, const uint8_t *packet, size_t total) {
  const size_t header = (size_t)(packet[0] & 15) * 4, mtu = mtu_for(inject, packet);
  const uint16_t flags = (uint16_t)(packet[6] << 8 | packet[7]);
  uint16_t id = (uint16_t)(packet[4] << 8 | packet[5]);
  uint8_t *const fragment = inject->fragment;
  if (mtu < MIN_MTU || total <= mtu) return EMSGSIZE;
  if (id == 0) {
    /* The kernel would give each fragment a number of its own. */
    if (++inject->id == 0) inject->id = 1;
    id = inject->id;
  }
  for (size_t at = header; at < total;) {
    size_t length, room, piece;
    uint16_t field;
    int error;
    if (at == header) {
      memcpy(fragment, packet, header);
      length = header;
    } else {
      length = copy_header(fragment, packet, header);
    }
    room = (mtu - length) / FRAGMENT_UNIT * FRAGMENT_UNIT;
    piece = total - at <= mtu - length ? total - at : room;
    field = (uint16_t)((flags & IP_OFFMASK) + (at - header) / FRAGMENT_UNIT);
    if (at + piece < total || (flags & IP_MF)) field |= IP_MF;
    memcpy(fragment + length, packet + at, piece);
    fragment[2] = (uint8_t)((length + piece) >> 8);
    fragment[3] = (uint8_t)(length + piece);
    fragment[4] = (uint8_t)(id >> 8);
    fragment[5] = (uint8_t)id;
    fragment[6] = (uint8_t)(field >> 8);
    fragment[7] = (uint8_t)field;
    /* The header's checksum is the kernel's business with IP_HDRINCL. */
    if ((error = send_packet(inject, fragment, length + piece, 0, 0)) != 0) return error;
    at += piece;
  }
  return 0;
}

/* (handle, bytes, start, end, mark, next hop, ifindex) → 0 or errno */
napi_value inject_send(napi_env env, napi_callback_info info) {
  napi_value args[7];
  struct inject *inject;
  uint8_t *bytes;
  size_t length, start, end, header;
  uint32_t mark, via;
  int error;
  if (!get_args(env, info, 7, args) || !(inject = handle_get(env, args[0], HANDLE_INJECT)) ||
      !(bytes = get_bytes(env, args[1], &length)))
    return NULL;
  start = (uint32_t)get_int(env, args[2]);
  end = (uint32_t)get_int(env, args[3]);
  mark = (uint32_t)get_int(env, args[4]);
  via = htonl((uint32_t)get_int(env, args[5]));
  if (start > end || end > length || end - start < MIN_HEADER || end - start > MAX_PACKET) return make_int(env, EINVAL);
  bytes += start;
  length = end - start;
  header = (size_t)(bytes[0] & 15) * 4;
  if (bytes[0] >> 4 != 4 || header < MIN_HEADER || header > length ||
      (size_t)(bytes[2] << 8 | bytes[3]) != length)
    return make_int(env, EINVAL);
  if (mark != inject->mark) {
    if (setsockopt(inject->fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0) return make_int(env, errno);
    inject->mark = mark;
  }
  error = send_packet(inject, bytes, length, via, get_int(env, args[6]));
  if (error == EMSGSIZE && !via && !((bytes[6] << 8) & IP_DF)) error = send_fragments(inject, bytes, length);
  return make_int(env, error);
}
