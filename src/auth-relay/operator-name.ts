import { userInfo } from 'node:os'

/** Who gives this order, for the history: the account behind sudo, the account, or its number where it has no name. */
export function operatorName(environment: Readonly<Record<string, string | undefined>>): string {
  const behind = environment['SUDO_USER']
  if (behind !== undefined && behind !== '') return behind
  try {
    return userInfo().username
  } catch {
    return `uid ${process.getuid?.() ?? '?'}` // an account without a name, as containers have them
  }
}
