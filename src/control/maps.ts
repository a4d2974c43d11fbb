/**
 * Names for numbers from iproute2's files (/etc/iproute2/rt_realms, group), as libxtables reads them: `NUMBER NAME` a
 * line, the number in hex or decimal. Read anew for each question; without the file there are no names.
 */
import { readFileSync } from 'node:fs';

export type NameMap = '/etc/iproute2/rt_realms' | '/etc/iproute2/group';

function rows(file: NameMap): { id: number; name: string }[] {
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    const found = /^\s*(0x[\da-f]+|\d+)\s+([^\s#]+)/i.exec(line);
    return found ? [{ id: Number(found[1]), name: found[2]! }] : [];
  });
}

export const idOf = (file: NameMap, name: string): number | undefined =>
  rows(file).find((row) => row.name === name)?.id;
export const nameOf = (file: NameMap, id: number): string | undefined => rows(file).find((row) => row.id === id)?.name;
