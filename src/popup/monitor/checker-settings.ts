import { hash } from 'node:crypto'
import { readSecretFile } from '../../settings/secret.ts'
import type { Settings } from '../../settings/settings.ts'

/**
 * A fingerprint of all that makes a checker, its secret file included. While it stays the same, a
 * reload keeps the checker with
 * its connections and the passwords that it remembers. @throws UsageFault if the secret file cannot be used.
 */
export function checkerFingerprint({ popup }: Settings): string {
  const secret =
    popup.checker === 'sql' && popup.sql_dbpass_file !== '' ? readSecretFile(popup.sql_dbpass_file).reveal() : ''
  const own = Object.entries(popup).filter(([name]) => name.startsWith('sql_') || OWN.has(name))
  return hash('sha256', JSON.stringify([own, secret]))
}

const OWN: ReadonlySet<string> = new Set([
  'checker',
  'checkpassword',
  'chain',
  'passwd_file',
  'apop_file',
  'maildir',
  'remember_passwords',
  'check_timeout',
  'checker_processes',
])
