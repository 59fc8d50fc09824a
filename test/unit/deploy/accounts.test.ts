import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseSettings } from '../../../src/settings/settings.ts'

const read = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8')

/** The accounts that the settings name by default. */
const { authd, popup, sslwrap, wrap, statusPage, alerts, database } = parseSettings('', 'test.toml').settings
const defaults = [
  ...new Set([
    ...[authd.user, popup.login_user, sslwrap.user, wrap.user, statusPage.user, alerts.user],
    database.embedded_user,
  ]),
].filter(account => account !== '')

test.each(defaults)('the Debian package makes the account %s, and removes it with purge', account => {
  expect(read('deploy/systemd/sysusers.conf')).toMatch(new RegExp(`^u ${account} +- "`, 'm'))
  const purged = /for account in (.*); do/.exec(read('deploy/debian/postrm'))?.[1]?.split(' ')
  expect(purged).toContain(account)
})

test('purge removes each account that the package makes', () => {
  const made = [...read('deploy/systemd/sysusers.conf').matchAll(/^u (\S+)/gm)].map(([, name]) => name)
  expect(made).toEqual(expect.arrayContaining(defaults))
  expect(/for account in (.*); do/.exec(read('deploy/debian/postrm'))?.[1]?.split(' ').toSorted()).toEqual(
    made.toSorted(),
  )
})
