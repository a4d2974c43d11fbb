/** Lists of CPUs, as `taskset -c` and /sys/devices/system/cpu have them. */

const MOST = 8192;

/**
 * The mask of a list such as `0-2,5`, as rps_cpus and its like read it: hexadecimal words of 32 bits, the highest first, with commas.
 * undefined: no such list.
 */
export function cpuMask(list: string): string | undefined {
  const words: number[] = [];
  for (const part of list.split(',')) {
    const [, from, to = from] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part) ?? [];
    if (from === undefined || Number(to) < Number(from) || Number(to) >= MOST) return undefined;
    for (let cpu = Number(from); cpu <= Number(to); cpu++)
      words[cpu >>> 5] = (words[cpu >>> 5] ?? 0) | (1 << (cpu & 31));
  }
  return Array.from(words, (word = 0) => (word >>> 0).toString(16).padStart(8, '0'))
    .reverse()
    .join(',');
}
