/*
 * NFQUEUE over raw netlink, the shared part of the C loops that hutter is measured by. No library between them and the
 * kernel: packets are read many at a time with recvmmsg, verdicts go back many at a time in one sendmsg. Netlink leaves
 * room before each payload (its own headers), so a verdict's header is written there and the packet goes back from
 * where it lies. The queue never fails open: what does not fit is dropped, and the kernel's count of it is printed.
 */
#ifndef HUTTER_PEERS_NFQ_H
#define HUTTER_PEERS_NFQ_H

#include "peer.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
  BATCH = 64,
  /* Longest payload the queue copies (65,531) with netlink's headers; an odd number of cache lines. */
  SLOT = 66496,
  BUFFER = 32 << 20,
};

/* One queued packet, pointing into its slot. */
struct packet {
  uint32_t id;      /* network order, as it came */
  uint32_t flags;   /* NFQA_SKB_* */
  uint8_t *payload;
  uint32_t length;
  int cut;          /* the queue kept only a part */
};

struct queue {
  int fd;
  uint16_t number;
  uint8_t *slots;
  struct mmsghdr messages[BATCH];
  struct iovec iov[BATCH];
  struct packet packets[BATCH];
  uint64_t received, overruns, refused;
};

/* The verdict for one packet: netlink, nfnetlink, the verdict, and the payload's attribute header, back to back. */
struct verdict {
  struct nlmsghdr nlh;
  struct nfgenmsg nfg;
  struct nlattr verdict_attr;
  struct nfqnl_msg_verdict_hdr verdict;
  struct nlattr payload_attr;
};
_Static_assert(sizeof(struct verdict) == 36, "no padding between netlink headers");

/* Sends one configuration message of ready-made attributes and waits for the kernel's yes. */
static void configure(struct queue *q, const void *attributes, uint32_t length, const char *what) {
  struct {
    struct nlmsghdr nlh;
    struct nfgenmsg nfg;
    uint8_t attributes[64];
  } request = {
      .nlh = {.nlmsg_len = (uint32_t)offsetof(typeof(request), attributes) + length,
              .nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG,
              .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
      .nfg = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(q->number)},
  };
  memcpy(request.attributes, attributes, length);
  if (send(q->fd, &request, request.nlh.nlmsg_len, 0) < 0) fail(what);
  union {
    struct nlmsghdr nlh;
    uint8_t bytes[8192];
  } answer;
  do {
    if (recv(q->fd, &answer, sizeof answer, 0) < 0) fail(what);
  } while (answer.nlh.nlmsg_type != NLMSG_ERROR); /* a packet of an instant ago: dropped when the queue closes */
  errno = -((struct nlmsgerr *)NLMSG_DATA(&answer.nlh))->error;
  if (errno) fail(what);
}

/* Binds queue `number` of this network namespace, `length` packets long, with whole packets and GSO. */
static void open_queue(struct queue *q, uint16_t number, uint32_t length) {
  memset(q, 0, sizeof *q);
  q->number = number;
  q->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
  if (q->fd < 0) fail("netlink socket");
  int buffer = BUFFER;
  if (setsockopt(q->fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0) fail("SO_RCVBUFFORCE");
  if (setsockopt(q->fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer) < 0) fail("SO_SNDBUFFORCE");
  /* Wakes now and then, so that a signal that arrives just before the wait is seen. */
  struct timeval patience = {.tv_usec = 200000};
  if (setsockopt(q->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0) fail("SO_RCVTIMEO");

  struct {
    struct nlattr attr;
    struct nfqnl_msg_config_cmd command;
  } bound = {{sizeof bound, NFQA_CFG_CMD}, {.command = NFQNL_CFG_CMD_BIND, .pf = htons(AF_INET)}};
  configure(q, &bound, sizeof bound, "bind of the queue");
  struct {
    struct nlattr length_attr;
    uint32_t length;
    struct nlattr flags_attr;
    uint32_t flags;
    struct nlattr mask_attr;
    uint32_t mask;
  } limits = {{8, NFQA_CFG_QUEUE_MAXLEN}, htonl(length),        {8, NFQA_CFG_FLAGS}, htonl(NFQA_CFG_F_GSO),
              {8, NFQA_CFG_MASK},         htonl(NFQA_CFG_F_GSO)};
  configure(q, &limits, sizeof limits, "length and flags of the queue");
  /* Last, as packets flow from here on. */
  struct {
    struct nlattr attr;
    struct nfqnl_msg_config_params params;
    uint8_t padding[3];
  } copy = {{NLA_HDRLEN + sizeof copy.params, NFQA_CFG_PARAMS},
            {.copy_range = htonl(0xffff), .copy_mode = NFQNL_COPY_PACKET},
            {0}};
  configure(q, &copy, sizeof copy, "copy mode of the queue");

  q->slots = aligned_alloc(64, (size_t)BATCH * SLOT);
  if (!q->slots) fail("memory");
  for (int i = 0; i < BATCH; i++) {
    q->iov[i] = (struct iovec){q->slots + (size_t)i * SLOT, SLOT};
    q->messages[i].msg_hdr = (struct msghdr){.msg_iov = &q->iov[i], .msg_iovlen = 1};
  }
  stop_on_signals();
}

/* Finds id, flags and payload of the message in a slot; 0 if it is no packet (an error answer to a verdict). */
static int read_message(struct queue *q, uint8_t *bytes, uint32_t length, struct packet *p) {
  struct nlmsghdr *nlh = (struct nlmsghdr *)bytes;
  if (length < sizeof *nlh || nlh->nlmsg_len > length) return 0;
  if (nlh->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET)) {
    if (nlh->nlmsg_type == NLMSG_ERROR) q->refused++;
    return 0;
  }
  memset(p, 0, sizeof *p);
  uint8_t *end = bytes + nlh->nlmsg_len;
  for (uint8_t *at = bytes + NLMSG_HDRLEN + sizeof(struct nfgenmsg); at + NLA_HDRLEN <= end;) {
    struct nlattr *attr = (struct nlattr *)at;
    if (attr->nla_len < NLA_HDRLEN || at + attr->nla_len > end) break;
    uint8_t *data = at + NLA_HDRLEN;
    switch (attr->nla_type & NLA_TYPE_MASK) {
      case NFQA_PACKET_HDR: p->id = ((struct nfqnl_msg_packet_hdr *)data)->packet_id; break;
      case NFQA_SKB_INFO: p->flags = ntohl(*(uint32_t *)data); break;
      case NFQA_CAP_LEN: p->cut = 1; break;
      case NFQA_PAYLOAD:
        p->payload = data;
        p->length = attr->nla_len - NLA_HDRLEN;
        break;
    }
    at += NLA_ALIGN(attr->nla_len);
  }
  return p->payload != NULL;
}

/* Waits for packets; returns how many are in q->packets, 0 after a pause or a signal. */
static int receive(struct queue *q) {
  int n = recvmmsg(q->fd, q->messages, BATCH, MSG_WAITFORONE, NULL);
  if (n < 0) {
    if (errno == ENOBUFS) q->overruns++;
    else if (errno != EINTR && errno != EAGAIN) fail("receive");
    return 0;
  }
  int packets = 0;
  for (int i = 0; i < n; i++) {
    if (read_message(q, q->iov[i].iov_base, q->messages[i].msg_len, &q->packets[packets])) packets++;
  }
  q->received += (uint64_t)packets;
  return packets;
}

/* Fills in a verdict's headers; `payload` bytes follow them (0 = the packet goes on as it is). */
static void write_verdict(const struct queue *q, struct verdict *v, uint32_t id, uint32_t verdict, uint32_t payload) {
  uint32_t length = payload ? (uint32_t)sizeof *v + payload : (uint32_t)offsetof(struct verdict, payload_attr);
  v->nlh = (struct nlmsghdr){
      .nlmsg_len = length, .nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT, .nlmsg_flags = NLM_F_REQUEST};
  v->nfg = (struct nfgenmsg){.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(q->number)};
  v->verdict_attr = (struct nlattr){.nla_len = NLA_HDRLEN + sizeof v->verdict, .nla_type = NFQA_VERDICT_HDR};
  v->verdict = (struct nfqnl_msg_verdict_hdr){.verdict = htonl(verdict), .id = id};
  if (payload) v->payload_attr = (struct nlattr){.nla_len = (uint16_t)(NLA_HDRLEN + payload), .nla_type = NFQA_PAYLOAD};
}

/* Sends what the vectors hold; a queue that has gone away ends the program. */
static void send_verdicts(struct queue *q, struct iovec *iov, size_t count) {
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  struct msghdr message = {.msg_name = &kernel, .msg_namelen = sizeof kernel, .msg_iov = iov, .msg_iovlen = count};
  while (sendmsg(q->fd, &message, 0) < 0) {
    if (errno == EINTR) continue;
    if (errno == ENOBUFS || errno == ENOMEM) {
      q->refused++;
      continue;
    }
    fail("verdicts");
  }
}

/* Prints what went through and what did not, as one line of JSON. */
static void report(struct queue *q) {
  unsigned long long queue_dropped = 0, user_dropped = 0;
  FILE *file = fopen("/proc/net/netfilter/nfnetlink_queue", "r");
  if (file) {
    unsigned number, port, total, mode, range;
    unsigned long long dropped, lost, sequence;
    int one;
    while (fscanf(file, "%u %u %u %u %u %llu %llu %llu %d", &number, &port, &total, &mode, &range, &dropped, &lost,
                  &sequence, &one) == 9) {
      if (number != q->number) continue;
      queue_dropped = dropped;
      user_dropped = lost;
    }
    fclose(file);
  }
  printf("{\"received\":%llu,\"queueDropped\":%llu,\"userDropped\":%llu,\"overruns\":%llu,\"refused\":%llu}\n",
         (unsigned long long)q->received, queue_dropped, user_dropped, (unsigned long long)q->overruns,
         (unsigned long long)q->refused);
}

#endif
