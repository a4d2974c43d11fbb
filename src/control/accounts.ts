/**
 * Users and groups by name, as getpwnam(3) and its like find them in /etc/passwd and /etc/group. Read anew for each
 * question: rules that ask are rare, and an account made a moment ago counts.
 */
import { readFileSync } from 'node:fs';

/** An account database. */
export type Accounts = '/etc/passwd' | '/etc/group';

const rows = (file: Accounts): string[][] => {
  try {
    return readFileSync(file, 'latin1')
      .split('\n')
      .map((line) => line.split(':'))
      .filter((row) => /^\d+$/.test(row[2] ?? ''));
  } catch {
    return [];
  }
};

/** Id of the account with this name. */
export function idOfName(file: Accounts, name: string): number | undefined {
  const row = name === '' ? undefined : rows(file).find(([known]) => known === name);
  return row && Number(row[2]);
}

/** Name of the first account with this id. */
export const nameOfId = (file: Accounts, id: number): string | undefined =>
  rows(file).find((row) => Number(row[2]) === id)?.[0];
