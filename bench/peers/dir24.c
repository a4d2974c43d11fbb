/*
 * What a lookup costs in C: DIR-24-8 (Gupta, Lin, McKeown 1998), as DPDK's rte_fib has it: an entry for each of the 2^24
 * upper parts of an address, and groups of 256 where prefixes are longer. The last 8 bits cost a second access.
 *
 *     dir24 TABLE TRACE ANSWERS MILLISECONDS
 *
 * TABLE: words of 32 bits, three a route: address, prefix length, next hop (1 to 65535). TRACE: addresses. ANSWERS gets the next
 * hop of each, 0 for none. Prints nanoseconds of processor time a lookup.
 */
#include "peer.h"
#include <sys/mman.h>

#define GROUP 0x80000000u
#define HUGE_PAGE (2u << 20)

static uint32_t *upper;
static uint32_t *groups;
static uint32_t group_count;

static uint32_t *read_words(const char *name, size_t *count) {
  FILE *file = fopen(name, "rb");
  if (file == NULL) fail(name);
  fseek(file, 0, SEEK_END);
  *count = (size_t)ftell(file) / 4;
  rewind(file);
  uint32_t *words = malloc(*count * 4);
  if (words == NULL || fread(words, 4, *count, file) != *count) fail(name);
  fclose(file);
  return words;
}

/* Routes come by length, the shortest first, so that each covers what was there. */
static void add(uint32_t address, uint32_t length, uint32_t hop) {
  if (length <= 24) {
    uint32_t first = address >> 8;
    for (uint32_t i = 0; i < 1u << (24 - length); i++) upper[first + i] = hop;
    return;
  }
  uint32_t *entry = &upper[address >> 8];
  if ((*entry & GROUP) == 0) {
    groups = realloc(groups, (group_count + 1) * 256 * sizeof *groups);
    if (groups == NULL) fail("groups");
    for (int i = 0; i < 256; i++) groups[group_count * 256 + i] = *entry;
    *entry = GROUP | group_count++;
  }
  uint32_t *group = &groups[(*entry & ~GROUP) * 256];
  for (uint32_t i = 0; i < 1u << (32 - length); i++) group[(address & 255) + i] = hop;
}

static inline uint32_t lookup(uint32_t address) {
  uint32_t entry = upper[address >> 8];
  return (entry & GROUP) == 0 ? entry : groups[(entry & ~GROUP) * 256 + (address & 255)];
}

static uint64_t cpu_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: dir24 TABLE TRACE ANSWERS MILLISECONDS\n");
    return 2;
  }
  size_t words, count;
  uint32_t *table = read_words(argv[1], &words);
  uint32_t *trace = read_words(argv[2], &count);
  size_t upper_bytes = sizeof *upper << 24;
  upper = aligned_alloc(HUGE_PAGE, upper_bytes);
  uint32_t *answers = malloc(count * sizeof *answers);
  if (upper == NULL || answers == NULL) fail("memory");
  /* As hutter's table has them, where the kernel gives huge pages to those that ask. */
  madvise(upper, upper_bytes, MADV_HUGEPAGE);
  memset(upper, 0, upper_bytes);
  for (uint32_t length = 0; length <= 32; length++)
    for (size_t i = 0; i < words; i += 3)
      if (table[i + 1] == length) add(table[i], length, table[i + 2]);
  uint64_t budget = strtoull(argv[4], NULL, 10) * 1000000u;
  uint64_t lookups = 0, spent = 0;
  for (size_t i = 0; i < count; i++) answers[i] = lookup(trace[i]);
  for (uint64_t begin = cpu_ns(); spent < budget; spent = cpu_ns() - begin) {
    for (size_t i = 0; i < count; i++) answers[i] = lookup(trace[i]);
    /* Each pass is wanted. */
    __asm__ volatile("" ::"r"(answers) : "memory");
    lookups += count;
  }
  FILE *file = fopen(argv[3], "wb");
  if (file == NULL || fwrite(answers, 4, count, file) != count || fclose(file) != 0) fail(argv[3]);
  printf("%.3f\n", (double)spent / (double)lookups);
  return 0;
}
