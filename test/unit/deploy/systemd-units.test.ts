import { globSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const root = new URL('../../..', import.meta.url).pathname

/** Every unit and drop-in, and each unit that a document prints, by name. */
const units: Readonly<Record<string, string>> = Object.fromEntries([
  ...globSync('deploy/systemd/*.{service,socket,conf}', { cwd: root }).map(path => [
    path,
    readFileSync(root + path, 'utf8'),
  ]),
  ...globSync('docs/*.md', { cwd: root }).flatMap(path =>
    [...readFileSync(root + path, 'utf8').matchAll(/^```ini\n(.*?)^```$/gms)].map(([, text = ''], index) => [
      `${path} ${index + 1}`,
      text,
    ]),
  ),
])

/** Values of an option in order, without comments. */
const valuesOf = (unit: string, option: string): readonly string[] =>
  unit
    .split('\n')
    .map(line => line.split('='))
    .flatMap(([name, ...value]) => (name?.trim() === option ? [value.join('=').trim()] : []))

test('the units, the drop-in and the unit of INSTALL are found', () => {
  expect(Object.keys(units)).toEqual(
    expect.arrayContaining([
      'deploy/systemd/auth-relay-popup.service',
      'deploy/systemd/smtpd.conf',
      'docs/INSTALL.md 1',
    ]),
  )
})

test('the account of a unit is found', () => {
  const unit = units['deploy/systemd/auth-relay-wrap.service'] ?? ''
  expect(['User', 'Group'].flatMap(option => valuesOf(unit, option))).toContain('auth-relay-gate')
})

// With systemd 255 and newer, "User=root" with NoNewPrivileges=yes and any seccomp filter loses
// CAP_SETUID, so that popup could not leave root. A drop-in does not show whether its unit has
// NoNewPrivileges=yes, so root must not be named anywhere.
test.each(Object.entries(units))('%s: root is the default user, never a named one', (_name, unit) => {
  const accounts = ['User', 'Group'].flatMap(option => valuesOf(unit, option))
  expect(accounts.filter(account => /^(root|0)$/.test(account))).toEqual([])
})

/** The options for which systemd sets NoNewPrivileges= in a unit with User=; systemd.exec(5). */
const IMPLY_NO_NEW_PRIVILEGES =
  /^(SystemCall(Filter|Architectures|Log)|Restrict(AddressFamilies|FileSystems|Namespaces|Realtime|SUIDSGID)|Private(Devices|Users)|Protect(Clock|Hostname|Kernel(Logs|Modules|Tunables))|MemoryDenyWriteExecute|LockPersonality|DynamicUser)$/

// sendmail of Postfix is setgid, that of Exim setuid.
test('no unit that starts sendmail under an account has an option that takes the rights of setgid programs', () => {
  const mailing = Object.entries(units).filter(
    ([, unit]) => valuesOf(unit, 'NoNewPrivileges').includes('no') && valuesOf(unit, 'User').some(user => user !== ''),
  )
  expect(mailing.map(([name]) => name)).toEqual(['deploy/systemd/auth-relay-alerts.service'])
  for (const [, unit] of mailing) {
    const options = unit.split('\n').flatMap(line => /^(\w+)=/.exec(line)?.[1] ?? [])
    expect(options.filter(option => IMPLY_NO_NEW_PRIVILEGES.test(option))).toEqual([])
  }
})

// In a user namespace all accounts except the unit's own look alike, so peers' accounts cannot be
// compared with settings.
test.each(['authd', 'wrap'])('%s sees the accounts of its peers', name => {
  expect(valuesOf(units[`deploy/systemd/auth-relay-${name}.service`] ?? '', 'PrivateUsers')).toEqual(['no'])
})

// `systemctl reload 'auth-relay-*.service'` reloads the running units, and fails if one of them
// cannot reload.
test.each(Object.keys(units).filter(name => name.startsWith('deploy/systemd/') && name.endsWith('.service')))(
  '%s can be reloaded',
  name => {
    expect(valuesOf(units[name] ?? '', 'ExecReload')).toEqual([`/bin/sh -c 'kill -HUP $MAINPID'`])
  },
)

// The gate drops root, and the root of the drop-in has no CAP_KILL.
test('the gate with an smtpd behind it can be reloaded', () => {
  const dropIn = units['deploy/systemd/smtpd.conf'] ?? ''
  expect(valuesOf(dropIn, 'CapabilityBoundingSet').join(' ')).not.toContain('CAP_KILL')
  expect(valuesOf(dropIn, 'ExecReload')).toEqual(['', `+/bin/sh -c 'kill -HUP $MAINPID'`])
})

// The kernel lets root without CAP_SYS_PTRACE read no /proc/PID/exe of another account, and the
// monitor reads that link after each checkpassword program: src/ucspi/checkpassword.ts.
test('the monitor of popup may read the process behind a checkpassword program', () => {
  const bounds = valuesOf(units['deploy/systemd/auth-relay-popup.service'] ?? '', 'CapabilityBoundingSet')
  expect(bounds.flatMap(words => words.split(' '))).toContain('CAP_SYS_PTRACE')
})
