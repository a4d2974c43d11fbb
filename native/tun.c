/*
 * TUN interfaces with several queues and the virtio header before each packet (Documentation/networking/tuntap.rst).
 *
 * open: one call goes into the namespace that shall have the interface, makes it there and comes back; the descriptors
 * stay bound to that namespace. The interface lives as long as one of them is open: no crash leaves it behind. A program
 * of five instructions has each pair of hosts meet one queue, so that fragments of a datagram come to one worker.
 *
 * attach: one worker's descriptors, one an interface, read and written a batch at a time. A packet is read to its slot
 * with the virtio header in the headroom before it, and written from there in the same way. An interface that is gone
 * (EBADFD) is left out from then on, and told by tun_states; the others go on.
 */
#include "batch.h"
#include "checksum.h"
#include "netns.h"
#include "turn.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Younger than the headers of some distributions. */
#ifndef TUN_F_USO4
enum { TUN_F_USO4 = 0x20, TUN_F_USO6 = 0x40 };
#endif
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
enum { VIRTIO_NET_HDR_GSO_UDP_L4 = 5 };
#endif

enum {
  VIRTIO = sizeof(struct virtio_net_hdr),
  MAX_QUEUES = 64,
  MAX_INTERFACES = 1024,
  /* Packets taken from one interface before the next one has its turn. */
  TURN = 32,
  MIN_HEADER = 20,
  /* 32 bits a word of nine characters, for 8,192 CPUs. */
  MAX_MASK = 2400,
};

/* ---- the interface ---- */

struct tun {
  struct handle handle;
  int fds[MAX_QUEUES];
  int count;
  bool uso;
};

static void close_tun(struct handle *handle) {
  struct tun *tun = (struct tun *)handle;
  for (int i = 0; i < tun->count; i++) close(tun->fds[i]);
  tun->count = 0;
}

/* source ^ destination, mixed; the kernel takes it modulo the number of queues. Returns a program, or −1. */
static int steering_program(void) {
  const struct bpf_insn code[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_6, .src_reg = BPF_REG_1},
      /* Offsets from the network header: SKF_NET_OFF. */
      {.code = BPF_LD | BPF_ABS | BPF_W, .imm = -0x100000 + 12},
      {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_7, .src_reg = BPF_REG_0},
      {.code = BPF_LD | BPF_ABS | BPF_W, .imm = -0x100000 + 16},
      {.code = BPF_ALU | BPF_XOR | BPF_X, .dst_reg = BPF_REG_0, .src_reg = BPF_REG_7},
      {.code = BPF_ALU | BPF_MUL | BPF_K, .dst_reg = BPF_REG_0, .imm = (int)0x9e3779b1},
      {.code = BPF_ALU | BPF_RSH | BPF_K, .dst_reg = BPF_REG_0, .imm = 16},
      {.code = BPF_JMP | BPF_EXIT},
  };
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attr.insns = (uint64_t)(uintptr_t)code;
  attr.insn_cnt = sizeof code / sizeof *code;
  attr.license = (uint64_t)(uintptr_t) "Dual MIT/GPL";
  return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
}

/* Returns NULL, or the step that failed with errno in `*error`. */
static const char *open_queues(struct tun *tun, const char *name, int queues, int *error) {
  const int features = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  const unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN;
  for (int i = 0; i < queues; i++) {
    struct ifreq request = {.ifr_flags = features | (i == 0 ? IFF_TUN_EXCL : 0)};
    const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return *error = errno, "open(/dev/net/tun)";
    tun->fds[tun->count++] = fd;
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    if (ioctl(fd, TUNSETIFF, &request) < 0) return *error = errno, "TUNSETIFF";
  }
  /* Of the interface, not of a queue. The kernel takes segmentation of UDP for both families together. */
  tun->uso = ioctl(tun->fds[0], TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6) == 0;
  if (!tun->uso && ioctl(tun->fds[0], TUNSETOFFLOAD, offloads) < 0) return *error = errno, "TUNSETOFFLOAD";
  if (queues > 1) {
    /* Without bpf() the kernel spreads by flows, which keeps all but fragments in their order. */
    const int program = steering_program();
    if (program >= 0) {
      ioctl(tun->fds[0], TUNSETSTEERINGEBPF, &program);
      close(program);
    }
  }
  return NULL;
}

#define STEERING "/proc/sys/net/core/rps_default_mask"

/* Writes the mask that interfaces made in this namespace get (and, unless NULL, first reads the one before). 0 or errno. */
static int set_steering(const char *mask, char *before, size_t size) {
  const int fd = open(STEERING, O_RDWR | O_CLOEXEC);
  ssize_t n = 0;
  int error = 0;
  if (fd < 0) return errno;
  if (before) {
    n = pread(fd, before, size - 1, 0);
    before[n < 0 ? 0 : n] = '\0';
  }
  if (n < 0 || pwrite(fd, mask, strlen(mask), 0) < 0) error = errno;
  close(fd);
  return error;
}

/*
 * (namespace, name, queues, mask) → handle. `namespace`: a file such as /run/netns/NAME, '' for this thread's own. `mask`: CPUs that
 * take over what is written (rps_cpus, Documentation/networking/scaling.rst), '' = none: the writer goes through the other
 * side's stack itself. It is set as the namespace's default while the interface is made, since sysfs shows one namespace only.
 */
napi_value tun_open(napi_env env, napi_callback_info info) {
  napi_value args[4];
  char path[MAX_PATH], name[IFNAMSIZ], mask[MAX_MASK], before[MAX_MASK];
  struct tun *tun;
  const char *failed;
  int error = 0, queues, home;
  if (!get_args(env, info, 4, args) || !get_text(env, args[0], path, sizeof path) ||
      !get_text(env, args[1], name, sizeof name) || !get_text(env, args[3], mask, sizeof mask))
    return NULL;
  queues = get_int(env, args[2]);
  if (queues < 1 || queues > MAX_QUEUES) return throw_errno(env, EINVAL, "queues");
  tun = calloc(1, sizeof *tun);
  if (!tun) return throw_errno(env, ENOMEM, "calloc");
  failed = netns_enter(path, &home, &error);
  if (!failed) {
    if (*mask != '\0' && (error = set_steering(mask, before, sizeof before)) != 0) failed = STEERING;
    if (!failed) failed = open_queues(tun, name, queues, &error);
    if (*mask != '\0') set_steering(before, NULL, 0);
    netns_leave(home);
  }
  if (failed) {
    close_tun(&tun->handle);
    free(tun);
    return throw_errno(env, error, failed);
  }
  return handle_publish(env, &tun->handle, HANDLE_TUN, close_tun, NULL);
}

/* (handle, queue) → descriptor, which stays the handle's */
napi_value tun_fd(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct tun *tun;
  int queue;
  if (!get_args(env, info, 2, args) || !(tun = handle_get(env, args[0], HANDLE_TUN))) return NULL;
  queue = get_int(env, args[1]);
  if (queue < 0 || queue >= tun->count) return throw_errno(env, EINVAL, "queue");
  return make_int(env, tun->fds[queue]);
}

/* ---- a worker's view ---- */

struct port {
  int fd;
  int32_t ifindex;
  enum { HOOK_PREROUTING = 0, HOOK_OUTPUT = 3 } hook;
  /* errno after which nothing more is asked of it; 0 = alive. */
  int dead;
  /* It may have packets: asked before it is read, or to be read without asking. */
  bool ready;
};

struct tun_ports {
  struct handle handle;
  struct turn turn;
  struct port *ports;
  struct pollfd *poll;
  size_t count;
  size_t first;
  int wake_fd;
  uint64_t received, sent, malformed, send_errors;
  int last_errno;
};

/* Totals in the turn's words from TURN_STATS on, in this order; Stat in io/tun.ts names them. */
enum { STAT_RECEIVED, STAT_SENT, STAT_MALFORMED, STAT_SEND_ERRORS, STAT_LAST_ERRNO, STAT_COUNT };

/* The descriptors are the interface's. */
static void close_ports(struct handle *handle) { ((struct tun_ports *)handle)->count = 0; }

static void release_ports(struct handle *handle) {
  turn_release(handle->env, &((struct tun_ports *)handle)->turn);
  free(((struct tun_ports *)handle)->ports);
  free(((struct tun_ports *)handle)->poll);
}

/* (ports, wakeFd) → handle. `ports`: descriptor, ifindex and hook, three words each. */
napi_value tun_attach(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct tun_ports *all;
  int32_t *words;
  size_t length;
  if (!get_args(env, info, 2, args) || !(words = get_words(env, args[0], &length))) return NULL;
  if (length % 3 != 0 || length / 3 > MAX_INTERFACES) return throw_errno(env, EINVAL, "ports");
  all = calloc(1, sizeof *all);
  if (!all) return throw_errno(env, ENOMEM, "calloc");
  all->count = length / 3;
  all->ports = calloc(all->count + 1, sizeof *all->ports);
  all->poll = calloc(all->count + 1, sizeof *all->poll);
  if (!all->ports || !all->poll) {
    release_ports(&all->handle);
    free(all);
    return throw_errno(env, ENOMEM, "calloc");
  }
  for (size_t i = 0; i < all->count; i++)
    all->ports[i] = (struct port){.fd = words[3 * i], .ifindex = words[3 * i + 1], .hook = words[3 * i + 2]};
  all->wake_fd = get_int(env, args[1]);
  return handle_publish(env, &all->handle, HANDLE_TUN_PORTS, close_ports, release_ports);
}

/* Reads the virtio header at `at`, and what lies behind it, into a meta record. */
static void describe(const struct port *port, const uint8_t *base, const uint8_t *at, size_t length, int32_t *meta) {
  struct virtio_net_hdr header;
  int32_t flags = 0;
  memcpy(&header, at, VIRTIO);
  memset(meta, 0, META_WORDS * sizeof *meta);
  meta[META_HOOK] = port->hook;
  meta[META_OFFSET] = (int32_t)(at + VIRTIO - base);
  meta[META_LENGTH] = meta[META_FULL_LENGTH] = (int32_t)(length - VIRTIO);
  meta[META_INDEV] = port->ifindex;
  if (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
    flags |= IN_FLAG_CSUM_PARTIAL;
  else if (!(header.flags & VIRTIO_NET_HDR_F_DATA_VALID))
    flags |= IN_FLAG_CSUM_NOT_VERIFIED;
  if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
    flags |= IN_FLAG_GSO;
    meta[META_GSO_SIZE] = header.gso_size;
    meta[META_GSO_TYPE] = header.gso_type;
  }
  meta[META_FLAGS] = flags;
}

/* Packets read into the batch from ports that are ready, by turns, until it is full or nothing is left. */
static size_t read_all(struct tun_ports *all, uint8_t *bytes, int32_t *meta, size_t capacity, size_t slot_size) {
  size_t filled = 0, idle = 0;
  while (filled < capacity && idle < all->count) {
    struct port *port = &all->ports[all->first];
    bool drained = port->dead != 0 || !port->ready;
    for (int turn = 0; !drained && turn < TURN && filled < capacity;) {
      uint8_t *at = bytes + filled * slot_size + HEADROOM - VIRTIO;
      const ssize_t n = read(port->fd, at, slot_size - HEADROOM + VIRTIO);
      if (n < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN) port->dead = errno;
        port->ready = false;
        drained = true;
        break;
      }
      turn++;
      if (n <= VIRTIO) {
        all->malformed++;
        continue;
      }
      describe(port, bytes, at, (size_t)n, meta + filled * META_WORDS);
      filled++;
    }
    idle = drained ? idle + 1 : 0;
    if (++all->first == all->count) all->first = 0;
  }
  all->received += filled;
  return filled;
}

/*
 * Waits for a packet, a wake or the end of `timeout` milliseconds (< 0: for ever), and finds out which ports are ready: a packet that
 * comes alone costs one poll and two reads of its port, and none of the others.
 */
static void wait_for_packets(struct tun_ports *all, double timeout) {
  struct timespec limit = {.tv_sec = (time_t)(timeout / 1e3)};
  limit.tv_nsec = (long)((timeout - (double)limit.tv_sec * 1e3) * 1e6);
  for (size_t i = 0; i < all->count; i++) {
    all->poll[i] = (struct pollfd){.fd = all->ports[i].dead ? -1 : all->ports[i].fd, .events = POLLIN};
    all->ports[i].ready = false;
  }
  all->poll[all->count] = (struct pollfd){.fd = all->wake_fd, .events = POLLIN};
  if (ppoll(all->poll, all->count + 1, timeout < 0 ? NULL : &limit, NULL) <= 0) return;
  if (all->poll[all->count].revents & POLLIN) {
    eventfd_t count;
    eventfd_read(all->wake_fd, &count);
  }
  /* A descriptor without its interface says so at each poll; reading tells why. */
  for (size_t i = 0; i < all->count; i++) {
    all->ports[i].ready = all->poll[i].revents & POLLIN;
    if (!(all->poll[i].revents & (POLLERR | POLLHUP | POLLNVAL))) continue;
    if (!(all->poll[i].revents & POLLIN)) all->ports[i].dead = EBADFD;
  }
}

static size_t receive_batch(struct tun_ports *all, size_t capacity, double timeout) {
  const struct turn *const turn = &all->turn;
  if (timeout != 0) wait_for_packets(all, timeout);
  else
    for (size_t i = 0; i < all->count; i++) all->ports[i].ready = true;
  return read_all(all, turn->bytes, turn->meta, capacity, turn->slot_size);
}

static struct port *port_of(struct tun_ports *all, int32_t ifindex) {
  for (size_t i = 0; i < all->count; i++)
    if (all->ports[i].ifindex == ifindex) return &all->ports[i];
  return NULL;
}

static void note_error(struct tun_ports *all, struct port *port, int error) {
  all->send_errors++;
  all->last_errno = error;
  if (port && error == EBADFD) port->dead = error;
}

/* `parts`: the virtio header and the packet, in one piece or two. */
static void write_packet(struct tun_ports *all, int32_t ifindex, const struct iovec *parts, int count) {
  struct port *port = port_of(all, ifindex);
  if (!port || port->dead) {
    note_error(all, NULL, port ? port->dead : ENXIO);
    return;
  }
  while ((count == 1 ? write(port->fd, parts->iov_base, parts->iov_len) : writev(port->fd, parts, count)) < 0)
    if (errno != EINTR) {
      note_error(all, port, errno);
      return;
    }
  all->sent++;
}

/* The virtio header of the packet bytes[ip, ip + length) as its record has it: what its sender left to do stays so. */
static struct virtio_net_hdr header_of(const int32_t *meta, size_t ip) {
  struct virtio_net_hdr header = {0};
  const int32_t flags = meta[META_FLAGS], mode = meta[META_CHECKSUM_MODE];
  if (mode == CHECKSUM_MODE_PSEUDO) {
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csum_start = (uint16_t)((size_t)meta[META_CHECKSUM_START] - ip);
    header.csum_offset = (uint16_t)(meta[META_CHECKSUM_FIELD] - meta[META_CHECKSUM_START]);
  } else if (!(flags & IN_FLAG_CSUM_NOT_VERIFIED)) {
    header.flags = VIRTIO_NET_HDR_F_DATA_VALID;
  }
  if (flags & IN_FLAG_GSO) {
    header.gso_type = (uint8_t)meta[META_GSO_TYPE];
    header.gso_size = (uint16_t)meta[META_GSO_SIZE];
    header.hdr_len = (uint16_t)meta[META_GSO_HEADERS];
  }
  return header;
}

/* Writes the accepted packets among the records [from, to). */
static void send_records(struct tun_ports *all, uint8_t *bytes, size_t bytes_length, const int32_t *meta, size_t from,
                         size_t to) {
  for (size_t i = from; i < to; i++) {
    const int32_t *m = meta + i * META_WORDS;
    const size_t ip = (uint32_t)m[META_NEW_OFFSET], length = (uint32_t)m[META_NEW_LENGTH];
    const size_t start = (uint32_t)m[META_CHECKSUM_START], field = (uint32_t)m[META_CHECKSUM_FIELD];
    struct virtio_net_hdr header;
    struct iovec part;
    if (m[META_VERDICT] != VERDICT_ACCEPT) continue;
    if (ip < VIRTIO || length < MIN_HEADER || ip + length > bytes_length ||
        (m[META_CHECKSUM_MODE] != CHECKSUM_MODE_NONE &&
         (start < ip || field < ip ||
          checksum_finish(bytes + ip, length, m[META_CHECKSUM_MODE], start - ip, field - ip) < 0))) {
      note_error(all, NULL, EMSGSIZE);
      continue;
    }
    header = header_of(m, ip);
    memcpy(bytes + ip - VIRTIO, &header, VIRTIO);
    part = (struct iovec){bytes + ip - VIRTIO, length + VIRTIO};
    write_packet(all, m[META_SEND_TO], &part, 1);
  }
}

/* (handle, bytes, meta, from, to): as the turn does, of another batch than the one lent */
napi_value tun_send(napi_env env, napi_callback_info info) {
  napi_value args[5];
  struct tun_ports *all;
  uint8_t *bytes;
  int32_t *meta;
  size_t bytes_length, meta_length, from, to;
  if (!get_args(env, info, 5, args) || !(all = handle_get(env, args[0], HANDLE_TUN_PORTS)) ||
      !(bytes = get_bytes(env, args[1], &bytes_length)) || !(meta = get_words(env, args[2], &meta_length)))
    return NULL;
  from = (uint32_t)get_int(env, args[3]);
  to = (uint32_t)get_int(env, args[4]);
  if (to * META_WORDS > meta_length) {
    napi_throw_range_error(env, NULL, "more packets than the batch has records");
    return NULL;
  }
  send_records(all, bytes, bytes_length, meta, from, to);
  return NULL;
}

static void tell_stats(const struct tun_ports *all) {
  double *const out = all->turn.words + TURN_STATS;
  out[STAT_RECEIVED] = (double)all->received;
  out[STAT_SENT] = (double)all->sent;
  out[STAT_MALFORMED] = (double)all->malformed;
  out[STAT_SEND_ERRORS] = (double)all->send_errors;
  out[STAT_LAST_ERRNO] = all->last_errno;
}

/* The interfaces' turn, as its words say. */
static napi_value tun_turn(napi_env env, napi_callback_info info) {
  struct tun_ports *const all = turn_handle(env, info);
  double *words;
  if (!all || !turn_valid(env, &all->turn)) return NULL;
  words = all->turn.words;
  send_records(all, all->turn.bytes, all->turn.bytes_length, all->turn.meta, (size_t)words[TURN_FROM],
               (size_t)words[TURN_TO]);
  words[TURN_RECEIVED] =
      words[TURN_ROOM] > 0 ? (double)receive_batch(all, (size_t)words[TURN_ROOM], words[TURN_TIMEOUT]) : 0;
  turn_tell_time(&all->turn);
  tell_stats(all);
  return NULL;
}

/* (handle, bytes, meta, words, slotSize) → the interfaces' turn with this batch */
napi_value tun_lend(napi_env env, napi_callback_info info) {
  napi_value args[5];
  struct tun_ports *all;
  if (!get_args(env, info, 5, args) || !(all = handle_get(env, args[0], HANDLE_TUN_PORTS)) ||
      !turn_lend(env, &all->turn, &args[1], (size_t)get_int(env, args[4]), STAT_COUNT))
    return NULL;
  return turn_function(env, tun_turn, &all->handle, args[0]);
}

/* (handle, bytes, start, end, ifindex): writes one finished packet */
napi_value tun_inject(napi_env env, napi_callback_info info) {
  napi_value args[5];
  struct tun_ports *all;
  uint8_t *bytes;
  size_t length, start, end;
  struct virtio_net_hdr header = {0};
  struct iovec parts[2];
  if (!get_args(env, info, 5, args) || !(all = handle_get(env, args[0], HANDLE_TUN_PORTS)) ||
      !(bytes = get_bytes(env, args[1], &length)))
    return NULL;
  start = (uint32_t)get_int(env, args[2]);
  end = (uint32_t)get_int(env, args[3]);
  if (start > end || end > length || end - start < MIN_HEADER) {
    note_error(all, NULL, EINVAL);
    return NULL;
  }
  parts[0] = (struct iovec){&header, VIRTIO};
  parts[1] = (struct iovec){bytes + start, end - start};
  write_packet(all, get_int(env, args[4]), parts, 2);
  return NULL;
}

/* (handle, out): for each interface, in the order of tun_attach, 0 or the errno it ended with */
napi_value tun_states(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct tun_ports *all;
  int32_t *out;
  size_t length;
  if (!get_args(env, info, 2, args) || !(all = handle_get(env, args[0], HANDLE_TUN_PORTS)) ||
      !(out = get_words(env, args[1], &length)))
    return NULL;
  for (size_t i = 0; i < all->count && i < length; i++) out[i] = all->ports[i].dead;
  return NULL;
}

/* (handle, ifindex): the descriptor is about to be closed */
napi_value tun_leave(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct tun_ports *all;
  struct port *port;
  if (!get_args(env, info, 2, args) || !(all = handle_get(env, args[0], HANDLE_TUN_PORTS))) return NULL;
  port = port_of(all, get_int(env, args[1]));
  if (port && !port->dead) port->dead = ENODEV;
  return NULL;
}
