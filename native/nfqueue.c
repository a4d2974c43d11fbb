/*
 * The kernel's packet queue (nfnetlink_queue) over a raw netlink socket, a batch at a time.
 *
 * receive: one recvmmsg puts each message into its slot of the lent memory; attributes are read into the meta record and
 * the packet stays where it is, LEAD + the attributes before it being its headroom. send: one sendmsg carries a batch of
 * verdicts, gathered from small headers here and payloads in the lent memory. Runs of equal verdicts without payload
 * become one NFQNL_MSG_VERDICT_BATCH, which decides every queued packet up to an id: so only while nothing received
 * earlier is undecided and the batch is decided in the order it came. Packets that were received and never decided are
 * dropped at the next receive: a worker that lost its place leaks none into the kernel's queue.
 *
 * One thread uses a queue. Kernel side: net/netfilter/nfnetlink_queue.c, net/netfilter/nfnetlink.c.
 */
#include "batch.h"
#include "checksum.h"
#include "netlink.h"
#include "turn.h"
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
  /* Bytes of a slot before the message: with the least attributes (44 bytes) before a packet, HEADROOM is kept. */
  LEAD = 224,
  /* nla_len has 16 bits. */
  MAX_PAYLOAD = 0xffff - NLA_HDRLEN,
  RECEIVE_BUFFER = 32 << 20,
  SEND_BUFFER = 4 << 20,
  /* A sendmsg is copied into one kernel allocation: more of it at once gains nothing. */
  SEND_CHUNK = 256 << 10,
  MAX_IOV = 1024,
  /* Padding, header, verdict, mark, priority, payload's attribute header. */
  MAX_HEAD = 3 + 20 + 12 + 8 + 8 + 4,
  NFNL_QUEUE = NFNL_SUBSYS_QUEUE << 8,
};

struct nfqueue {
  struct handle handle;
  struct turn turn;
  int fd;
  int wake_fd;
  uint16_t number;
  uint32_t sequence;
  /* errno after which the kernel no longer knows this queue as ours; 0 = alive. */
  int dead;
  /* Ids received and not yet decided, in the order they came; `ascending`: as the kernel gives them. */
  uint32_t *pending;
  size_t pending_count;
  bool ascending;

  size_t capacity;
  struct mmsghdr *messages;
  struct iovec *slots;
  const uint8_t *slots_base;
  size_t slots_size;

  struct iovec iov[MAX_IOV];
  size_t iov_count;
  uint8_t *heads;
  size_t head_length;
  size_t chunk_length;
  size_t chunk_limit;
  /* Index of the first packet of the chunk being built, and of the first one after it. */
  size_t chunk_first;

  uint64_t received, overruns, malformed, cut, refused, undecided, send_errors;
  int last_errno;
};

/* Totals in the turn's words from TURN_STATS on, in this order; Stat in io/nfqueue.ts names them. */
enum { STAT_RECEIVED, STAT_OVERRUNS, STAT_MALFORMED, STAT_CUT, STAT_REFUSED, STAT_UNDECIDED, STAT_SEND_ERRORS,
       STAT_LAST_ERRNO, STAT_COUNT };

static void close_nfqueue(struct handle *handle) {
  struct nfqueue *q = (struct nfqueue *)handle;
  if (q->fd >= 0) close(q->fd);
  q->fd = -1;
}

static void release_nfqueue(struct handle *handle) {
  struct nfqueue *q = (struct nfqueue *)handle;
  turn_release(handle->env, &q->turn);
  free(q->pending);
  free(q->messages);
  free(q->slots);
  free(q->heads);
}

static struct nlmsghdr *begin_message(void *buffer, uint16_t type, uint16_t flags, uint32_t sequence, uint16_t number) {
  struct nlmsghdr *message = buffer;
  struct nfgenmsg *general = NLMSG_DATA(message);
  *message = (struct nlmsghdr){
      .nlmsg_len = NLMSG_LENGTH(sizeof *general), .nlmsg_type = NFNL_QUEUE | type, .nlmsg_flags = NLM_F_REQUEST | flags,
      .nlmsg_seq = sequence};
  *general = (struct nfgenmsg){.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(number)};
  return message;
}

static void put_command(struct nlmsghdr *message, uint8_t command) {
  const struct nfqnl_msg_config_cmd value = {.command = command, .pf = htons(AF_INET)};
  nl_put(message, NFQA_CFG_CMD, &value, sizeof value);
}

/* Sends a request that nothing but its acknowledgement answers. Returns 0 or errno. */
static int request(int fd, struct nlmsghdr *message) {
  char answer[512];
  message->nlmsg_flags |= NLM_F_ACK;
  if (send(fd, message, message->nlmsg_len, 0) < 0) return errno;
  for (;;) {
    const struct nlmsghdr *reply = (struct nlmsghdr *)answer;
    const ssize_t length = recv(fd, answer, sizeof answer, 0);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return errno;
    if (!NLMSG_OK(reply, (size_t)length) || reply->nlmsg_seq != message->nlmsg_seq ||
        reply->nlmsg_type != NLMSG_ERROR)
      continue;
    return -((struct nlmsgerr *)NLMSG_DATA(reply))->error;
  }
}

static void set_buffer(int fd, int force, int option, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) < 0)
    setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes);
}

/* Not acknowledged, as packets may come before the acknowledgement. Returns 0 or errno. */
static int set_copy_range(struct nfqueue *q, uint32_t copy_range) {
  const struct nfqnl_msg_config_params params = {.copy_range = htonl(copy_range), .copy_mode = NFQNL_COPY_PACKET};
  _Alignas(8) char buffer[64];
  struct nlmsghdr *message = begin_message(buffer, NFQNL_MSG_CONFIG, 0, ++q->sequence, q->number);
  nl_put(message, NFQA_CFG_PARAMS, &params, sizeof params);
  return send(q->fd, message, message->nlmsg_len, 0) < 0 ? errno : 0;
}

/*
 * Returns NULL, or the step that failed with errno in `*error`. An EPERM from "bind" after a successful "permission"
 * means that another socket owns the queue: the kernel says EPERM for both.
 */
static const char *bind_queue(struct nfqueue *q, uint32_t copy_range, uint32_t max_length, uint32_t flags, int *error) {
  const struct sockaddr_nl local = {.nl_family = AF_NETLINK};
  const int yes = 1;
  _Alignas(8) char buffer[256];
  struct nlmsghdr *message;
  int sndbuf;
  socklen_t length = sizeof sndbuf;

  q->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
  if (q->fd < 0) return *error = errno, "socket(NETLINK_NETFILTER)";
  if (bind(q->fd, (const struct sockaddr *)&local, sizeof local) < 0) return *error = errno, "bind(netlink)";
  /* An error message quotes the request's header only, not a 64 KiB payload. */
  setsockopt(q->fd, SOL_NETLINK, NETLINK_CAP_ACK, &yes, sizeof yes);
  set_buffer(q->fd, SO_RCVBUFFORCE, SO_RCVBUF, RECEIVE_BUFFER);
  set_buffer(q->fd, SO_SNDBUFFORCE, SO_SNDBUF, SEND_BUFFER);
  q->chunk_limit = SEND_CHUNK;
  if (getsockopt(q->fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, &length) == 0 && sndbuf / 2 < SEND_CHUNK)
    q->chunk_limit = (size_t)sndbuf / 2;

  /* An obsolete command that does nothing, whoever owns the queue: it tells whether we may speak at all. */
  message = begin_message(buffer, NFQNL_MSG_CONFIG, 0, ++q->sequence, 0);
  put_command(message, NFQNL_CFG_CMD_PF_BIND);
  if ((*error = request(q->fd, message)) != 0) return "nfnetlink_queue";

  message = begin_message(buffer, NFQNL_MSG_CONFIG, 0, ++q->sequence, q->number);
  put_command(message, NFQNL_CFG_CMD_BIND);
  if ((*error = request(q->fd, message)) != 0) return "NFQNL_CFG_CMD_BIND";

  message = begin_message(buffer, NFQNL_MSG_CONFIG, 0, ++q->sequence, q->number);
  nl_put_u32(message, NFQA_CFG_MASK, htonl(NFQA_CFG_F_FAIL_OPEN | NFQA_CFG_F_GSO | NFQA_CFG_F_UID_GID));
  nl_put_u32(message, NFQA_CFG_FLAGS, htonl(flags));
  nl_put_u32(message, NFQA_CFG_QUEUE_MAXLEN, htonl(max_length));
  if ((*error = request(q->fd, message)) != 0) return "NFQA_CFG_FLAGS";

  /* From here on packets come. */
  if ((*error = set_copy_range(q, copy_range)) != 0) return "NFQA_CFG_PARAMS";
  return NULL;
}

/* (queue, copyRange, maxLength, flags, wakeFd, capacity) → handle */
napi_value nfqueue_open(napi_env env, napi_callback_info info) {
  napi_value args[6];
  struct nfqueue *q;
  const char *failed;
  int error = 0;
  if (!get_args(env, info, 6, args)) return NULL;
  q = calloc(1, sizeof *q);
  if (!q) return throw_errno(env, ENOMEM, "calloc");
  q->fd = -1;
  q->number = (uint16_t)get_int(env, args[0]);
  q->wake_fd = get_int(env, args[4]);
  q->capacity = (size_t)get_int(env, args[5]);
  q->ascending = true;
  q->pending = calloc(q->capacity, sizeof *q->pending);
  q->messages = calloc(q->capacity, sizeof *q->messages);
  q->slots = calloc(q->capacity, sizeof *q->slots);
  q->heads = malloc(q->capacity * MAX_HEAD);
  if (!q->pending || !q->messages || !q->slots || !q->heads) {
    failed = "calloc";
    error = ENOMEM;
  } else {
    failed = bind_queue(q, (uint32_t)get_int(env, args[1]), (uint32_t)get_int(env, args[2]),
                        (uint32_t)get_int(env, args[3]), &error);
  }
  if (failed) {
    close_nfqueue(&q->handle);
    release_nfqueue(&q->handle);
    free(q);
    return throw_errno(env, error, failed);
  }
  return handle_publish(env, &q->handle, HANDLE_NFQUEUE, close_nfqueue, release_nfqueue);
}

static napi_value nfqueue_turn(napi_env env, napi_callback_info info);

/* ---- receive ---- */

static void note_refusal(struct nfqueue *q, const struct nlmsghdr *message, size_t length) {
  const struct nlmsgerr *answer = NLMSG_DATA(message);
  if (length < NLMSG_LENGTH(sizeof *answer) || answer->error == 0) return;
  q->refused++;
  q->last_errno = -answer->error;
  /* No such queue, or another's by now. */
  if (answer->error == -ENODEV || answer->error == -EPERM) q->dead = -answer->error;
}

static void send_plain_verdict(struct nfqueue *q, uint32_t id, uint32_t verdict) {
  _Alignas(8) char buffer[64];
  const struct nfqnl_msg_verdict_hdr header = {htonl(verdict), htonl(id)};
  struct nlmsghdr *message = begin_message(buffer, NFQNL_MSG_VERDICT, 0, ++q->sequence, q->number);
  nl_put(message, NFQA_VERDICT_HDR, &header, sizeof header);
  if (send(q->fd, message, message->nlmsg_len, 0) < 0) {
    q->send_errors++;
    q->last_errno = errno;
  }
}

/* Reads a packet message of `length` bytes at `slot` into a meta record. False: there is no packet in it. */
static bool read_packet(struct nfqueue *q, const uint8_t *base, const uint8_t *slot, size_t length, int32_t *meta) {
  const struct nlmsghdr *message = (const struct nlmsghdr *)slot;
  const uint8_t *at = slot + NLMSG_LENGTH(sizeof(struct nfgenmsg));
  const uint8_t *const end = slot + length;
  const uint8_t *data;
  uint32_t size, info;
  uint16_t type;
  int32_t flags = 0, full = -1;
  bool have_id = false, have_payload = false;

  memset(meta, 0, META_WORDS * sizeof *meta);
  if (message->nlmsg_type != (NFNL_QUEUE | NFQNL_MSG_PACKET) || length < NLMSG_LENGTH(sizeof(struct nfgenmsg)))
    return false;
  while (nl_next(&at, end, &type, &data, &size)) {
    const size_t present = (size_t)(end - data);
    if (type == NFQA_PAYLOAD) {
      meta[META_OFFSET] = (int32_t)(data - base);
      meta[META_LENGTH] = (int32_t)(size < present ? size : present);
      if (present < size) full = (int32_t)size;
      have_payload = true;
      continue;
    }
    if (present < size || size < 4) continue;
    switch (type) {
    case NFQA_PACKET_HDR:
      if (size < sizeof(struct nfqnl_msg_packet_hdr)) break;
      meta[META_ID] = (int32_t)ntohl(load32(data));
      meta[META_HOOK] = data[6];
      have_id = true;
      break;
    case NFQA_IFINDEX_INDEV: meta[META_INDEV] = (int32_t)ntohl(load32(data)); break;
    case NFQA_IFINDEX_OUTDEV: meta[META_OUTDEV] = (int32_t)ntohl(load32(data)); break;
    case NFQA_IFINDEX_PHYSINDEV: meta[META_PHYSINDEV] = (int32_t)ntohl(load32(data)); break;
    case NFQA_IFINDEX_PHYSOUTDEV: meta[META_PHYSOUTDEV] = (int32_t)ntohl(load32(data)); break;
    case NFQA_MARK: meta[META_MARK] = (int32_t)ntohl(load32(data)); break;
    case NFQA_HWADDR:
      if (size < sizeof(struct nfqnl_msg_packet_hw)) break;
      meta[META_MAC_LENGTH] = data[0] << 8 | data[1];
      meta[META_MAC_HIGH] = (int32_t)ntohl(load32(data + 4));
      meta[META_MAC_LOW] = (int32_t)ntohl(load32(data + 8));
      break;
    case NFQA_CAP_LEN: full = (int32_t)ntohl(load32(data)); break;
    case NFQA_UID:
      meta[META_UID] = (int32_t)ntohl(load32(data));
      flags |= IN_FLAG_UID;
      break;
    case NFQA_GID:
      meta[META_GID] = (int32_t)ntohl(load32(data));
      flags |= IN_FLAG_GID;
      break;
    case NFQA_SKB_INFO:
      info = ntohl(load32(data));
      if (info & NFQA_SKB_CSUMNOTREADY) flags |= IN_FLAG_CSUM_PARTIAL;
      if (info & NFQA_SKB_GSO) flags |= IN_FLAG_GSO;
      if (info & NFQA_SKB_CSUM_NOTVERIFIED) flags |= IN_FLAG_CSUM_NOT_VERIFIED;
      break;
    }
  }
  if (!have_id) return false;
  if (!have_payload) {
    send_plain_verdict(q, (uint32_t)meta[META_ID], NF_DROP);
    return false;
  }
  if (full > meta[META_LENGTH]) {
    flags |= IN_FLAG_CUT;
    q->cut++;
  }
  meta[META_FULL_LENGTH] = full < 0 ? meta[META_LENGTH] : full;
  meta[META_FLAGS] = flags;
  return true;
}

/* (handle, bytes, meta, words, slotSize) → the queue's turn with this batch */
napi_value nfqueue_lend(napi_env env, napi_callback_info info) {
  napi_value args[5];
  struct nfqueue *q;
  size_t slot_size;
  if (!get_args(env, info, 5, args) || !(q = handle_get(env, args[0], HANDLE_NFQUEUE))) return NULL;
  slot_size = (size_t)get_int(env, args[4]);
  if (!turn_lend(env, &q->turn, &args[1], slot_size, STAT_COUNT)) return NULL;
  for (size_t i = 0; i < q->capacity && i < q->turn.records; i++) {
    q->slots[i] = (struct iovec){q->turn.bytes + i * slot_size + LEAD, slot_size - LEAD};
    q->messages[i].msg_hdr = (struct msghdr){.msg_iov = &q->slots[i], .msg_iovlen = 1};
  }
  return turn_function(env, nfqueue_turn, &q->handle, args[0]);
}

/* Reads what is there, at most `count` messages. Returns how many, 0 when there is nothing, or −errno. */
static int receive_now(struct nfqueue *q, unsigned count) {
  for (;;) {
    const int n = recvmmsg(q->fd, q->messages, count, MSG_DONTWAIT, NULL);
    if (n >= 0) return n;
    if (errno == ENOBUFS)
      q->overruns++;
    else if (errno == EAGAIN)
      return 0;
    else if (errno != EINTR)
      return -errno;
  }
}

static int wait_for_packets(struct nfqueue *q, int timeout) {
  struct pollfd fds[2] = {{.fd = q->fd, .events = POLLIN}, {.fd = q->wake_fd, .events = POLLIN}};
  const int n = poll(fds, q->wake_fd < 0 ? 1 : 2, timeout);
  if (n < 0) return errno == EINTR ? 0 : -errno;
  if (fds[1].revents & POLLIN) {
    eventfd_t count;
    eventfd_read(q->wake_fd, &count);
  }
  return fds[0].revents != 0;
}

/* Packets received into the batch, or −errno when the queue is gone. */
static int receive_batch(struct nfqueue *q, size_t capacity, int timeout) {
  int n = 0, packets = 0;
  if (capacity > q->capacity) capacity = q->capacity;

  for (size_t i = 0; i < q->pending_count; i++) {
    send_plain_verdict(q, q->pending[i], NF_DROP);
    q->undecided++;
  }
  q->pending_count = 0;
  q->ascending = true;

  if (timeout != 0 && !q->dead) n = wait_for_packets(q, timeout);
  if (timeout == 0 || n > 0) n = receive_now(q, (unsigned)capacity);
  if (n < 0) return n;

  for (int i = 0; i < n; i++) {
    const uint8_t *slot = q->slots[i].iov_base;
    const size_t length = q->messages[i].msg_len;
    const struct nlmsghdr *message = (const struct nlmsghdr *)slot;
    int32_t *record = q->turn.meta + (size_t)packets * META_WORDS;
    if (length >= sizeof *message && message->nlmsg_type == NLMSG_ERROR) {
      note_refusal(q, message, length);
    } else if (read_packet(q, q->turn.bytes, slot, length, record)) {
      const uint32_t id = (uint32_t)record[META_ID];
      if (packets > 0 && (int32_t)(id - q->pending[packets - 1]) <= 0) q->ascending = false;
      q->pending[packets++] = id;
    } else {
      q->malformed++;
    }
  }
  q->pending_count = (size_t)packets;
  q->received += (uint64_t)packets;
  return packets == 0 && q->dead ? -q->dead : packets;
}

/* ---- send ---- */

static void flush_chunk(struct nfqueue *q, const int32_t *meta, size_t end) {
  const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  const struct msghdr message = {
      .msg_name = (void *)&kernel, .msg_namelen = sizeof kernel, .msg_iov = q->iov, .msg_iovlen = q->iov_count};
  if (q->iov_count > 0) {
    ssize_t sent;
    do sent = sendmsg(q->fd, &message, 0);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) {
      /* Out of memory, most likely. The packets must not stay in the queue: drop them with messages that are small. */
      q->send_errors += end - q->chunk_first;
      q->last_errno = errno;
      for (size_t i = q->chunk_first; i < end; i++)
        send_plain_verdict(q, (uint32_t)meta[i * META_WORDS + META_ID], NF_DROP);
    }
  }
  q->iov_count = 0;
  q->head_length = 0;
  q->chunk_length = 0;
  q->chunk_first = end;
}

static void add_iov(struct nfqueue *q, uint8_t *base, size_t length) {
  struct iovec *last = q->iov_count > 0 ? &q->iov[q->iov_count - 1] : NULL;
  if (last && (uint8_t *)last->iov_base + last->iov_len == base)
    last->iov_len += length;
  else
    q->iov[q->iov_count++] = (struct iovec){base, length};
  q->chunk_length += length;
}

/* Appends one verdict message; with `payload` its bytes follow from where they lie. */
static void add_verdict(struct nfqueue *q, uint16_t type, uint32_t id, uint32_t verdict, const int32_t *record,
                        uint8_t *payload, size_t payload_length) {
  const size_t padding = NLMSG_ALIGN(q->chunk_length) - q->chunk_length;
  uint8_t *const at = q->heads + q->head_length;
  _Alignas(8) uint8_t head[64];
  const struct nfqnl_msg_verdict_hdr header = {htonl(verdict), htonl(id)};
  struct nlmsghdr *message = begin_message(head, type, 0, ++q->sequence, q->number);
  size_t length;
  nl_put(message, NFQA_VERDICT_HDR, &header, sizeof header);
  if (record[META_OUT_FLAGS] & OUT_FLAG_MARK)
    nl_put_u32(message, NFQA_MARK, htonl((uint32_t)record[META_NEW_MARK]));
  if (record[META_OUT_FLAGS] & OUT_FLAG_PRIORITY)
    nl_put_u32(message, NFQA_PRIORITY, htonl((uint32_t)record[META_NEW_PRIORITY]));
  length = message->nlmsg_len;
  if (payload) {
    const struct nlattr attribute = {(uint16_t)(NLA_HDRLEN + payload_length), NFQA_PAYLOAD};
    memcpy(head + length, &attribute, sizeof attribute);
    length += sizeof attribute;
    message->nlmsg_len = (uint32_t)(length + payload_length);
  }
  memset(at, 0, padding);
  memcpy(at + padding, head, length);
  q->head_length += padding + length;
  add_iov(q, at, padding + length);
  if (payload) add_iov(q, payload, payload_length);
}

/* The kernel's verdict for a record; `*payload` says whether the bytes go back. */
static uint32_t kernel_verdict(struct nfqueue *q, int32_t *record, uint8_t *bytes, size_t bytes_length, bool *payload) {
  const int32_t verdict = record[META_VERDICT];
  *payload = false;
  if (verdict != VERDICT_ACCEPT && verdict != VERDICT_QUEUE) return NF_DROP;
  if (record[META_OUT_FLAGS] & OUT_FLAG_PAYLOAD) {
    const size_t offset = (uint32_t)record[META_NEW_OFFSET], length = (uint32_t)record[META_NEW_LENGTH];
    const size_t start = (uint32_t)record[META_CHECKSUM_START], field = (uint32_t)record[META_CHECKSUM_FIELD];
    const int mode = record[META_CHECKSUM_MODE];
    if ((record[META_FLAGS] & IN_FLAG_CUT) || length == 0 || length > MAX_PAYLOAD || offset + length > bytes_length ||
        (mode != CHECKSUM_MODE_NONE && (start < offset || field < offset ||
                                        checksum_finish(bytes + offset, length, mode, start - offset, field - offset)))) {
      q->send_errors++;
      q->last_errno = EMSGSIZE;
      return NF_DROP;
    }
    *payload = true;
  }
  return verdict == VERDICT_QUEUE ? NF_QUEUE | ((uint32_t)record[META_SEND_TO] & 0xffff) << NF_VERDICT_QBITS : NF_ACCEPT;
}

static bool same_plain_verdict(const int32_t *a, const int32_t *b) {
  if (b[META_OUT_FLAGS] & OUT_FLAG_PAYLOAD || b[META_VERDICT] == VERDICT_QUEUE) return false;
  if ((a[META_VERDICT] == VERDICT_ACCEPT) != (b[META_VERDICT] == VERDICT_ACCEPT)) return false;
  if (a[META_VERDICT] != VERDICT_ACCEPT) return true;
  return a[META_OUT_FLAGS] == b[META_OUT_FLAGS] &&
         (!(a[META_OUT_FLAGS] & OUT_FLAG_MARK) || a[META_NEW_MARK] == b[META_NEW_MARK]) &&
         (!(a[META_OUT_FLAGS] & OUT_FLAG_PRIORITY) || a[META_NEW_PRIORITY] == b[META_NEW_PRIORITY]);
}

/* Carries out the verdicts of the batch's first `count` packets. */
static void send_batch(struct nfqueue *q, size_t count) {
  uint8_t *const bytes = q->turn.bytes;
  int32_t *const meta = q->turn.meta;
  const size_t bytes_length = q->turn.bytes_length;
  size_t decided;
  bool in_order;

  in_order = q->ascending && count <= q->pending_count;
  for (size_t i = 0; in_order && i < count; i++) in_order = (uint32_t)meta[i * META_WORDS + META_ID] == q->pending[i];

  q->chunk_first = 0;
  for (size_t i = 0; i < count;) {
    int32_t *record = meta + i * META_WORDS;
    size_t next = i + 1, length;
    bool payload;
    uint32_t verdict = kernel_verdict(q, record, bytes, bytes_length, &payload);
    length = payload ? (size_t)record[META_NEW_LENGTH] : 0;
    /* Room in the iovecs for a head and a payload, in `heads` for one more, in the chunk for the bytes. */
    if (q->iov_count + 2 > MAX_IOV || q->head_length + MAX_HEAD > q->capacity * MAX_HEAD ||
        (q->chunk_length > 0 && q->chunk_length + length + MAX_HEAD > q->chunk_limit))
      flush_chunk(q, meta, i);
    if (payload) {
      add_verdict(q, NFQNL_MSG_VERDICT, (uint32_t)record[META_ID], verdict, record, bytes + record[META_NEW_OFFSET],
                  length);
    } else {
      if (in_order && !(record[META_OUT_FLAGS] & OUT_FLAG_PAYLOAD) && record[META_VERDICT] != VERDICT_QUEUE)
        while (next < count && same_plain_verdict(record, meta + next * META_WORDS)) next++;
      add_verdict(q, next > i + 1 ? NFQNL_MSG_VERDICT_BATCH : NFQNL_MSG_VERDICT,
                  (uint32_t)meta[(next - 1) * META_WORDS + META_ID], verdict, record, NULL, 0);
    }
    i = next;
  }
  flush_chunk(q, meta, count);

  decided = count < q->pending_count ? count : q->pending_count;
  q->pending_count -= decided;
  if (q->pending_count > 0) memmove(q->pending, q->pending + decided, q->pending_count * sizeof *q->pending);
}

/* ---- the turn ---- */

static void tell_stats(const struct nfqueue *q) {
  double *const out = q->turn.words + TURN_STATS;
  out[STAT_RECEIVED] = (double)q->received;
  out[STAT_OVERRUNS] = (double)q->overruns;
  out[STAT_MALFORMED] = (double)q->malformed;
  out[STAT_CUT] = (double)q->cut;
  out[STAT_REFUSED] = (double)q->refused;
  out[STAT_UNDECIDED] = (double)q->undecided;
  out[STAT_SEND_ERRORS] = (double)q->send_errors;
  out[STAT_LAST_ERRNO] = q->last_errno;
}

/* The queue's turn, as its words say. TURN_FROM is always 0. */
static napi_value nfqueue_turn(napi_env env, napi_callback_info info) {
  struct nfqueue *const q = turn_handle(env, info);
  double *words;
  if (!q || !turn_valid(env, &q->turn)) return NULL;
  words = q->turn.words;
  if (words[TURN_TO] > 0) send_batch(q, (size_t)words[TURN_TO]);
  words[TURN_RECEIVED] = words[TURN_ROOM] > 0 ? receive_batch(q, (size_t)words[TURN_ROOM], (int)words[TURN_TIMEOUT]) : 0;
  turn_tell_time(&q->turn);
  tell_stats(q);
  return NULL;
}

/* ---- the rest ---- */

/* (handle, bytes): what the kernel copies of each packet that it queues from now on. */
napi_value nfqueue_copy(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct nfqueue *q;
  int error;
  if (!get_args(env, info, 2, args) || !(q = handle_get(env, args[0], HANDLE_NFQUEUE))) return NULL;
  error = set_copy_range(q, (uint32_t)get_int(env, args[1]));
  return error ? throw_errno(env, error, "NFQA_CFG_PARAMS") : NULL;
}

/* (handle): asks the kernel for nothing; if the queue is dead, the next receive will say so. */
napi_value nfqueue_probe(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct nfqueue *q;
  _Alignas(8) char buffer[64];
  struct nlmsghdr *message;
  if (!get_args(env, info, 1, args) || !(q = handle_get(env, args[0], HANDLE_NFQUEUE))) return NULL;
  message = begin_message(buffer, NFQNL_MSG_CONFIG, 0, ++q->sequence, q->number);
  if (send(q->fd, message, message->nlmsg_len, 0) < 0) return throw_errno(env, errno, "send(netlink)");
  return NULL;
}

/* (handle): gives the queue up without closing; what is queued is dropped by the kernel. */
napi_value nfqueue_unbind(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct nfqueue *q;
  _Alignas(8) char buffer[64];
  struct nlmsghdr *message;
  if (!get_args(env, info, 1, args) || !(q = handle_get(env, args[0], HANDLE_NFQUEUE))) return NULL;
  message = begin_message(buffer, NFQNL_MSG_CONFIG, 0, ++q->sequence, q->number);
  put_command(message, NFQNL_CFG_CMD_UNBIND);
  if (send(q->fd, message, message->nlmsg_len, 0) < 0) return throw_errno(env, errno, "send(netlink)");
  return NULL;
}
