import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { omfwdRule } from '../../../../src/auth-relay/check/check-syslog.ts'

const read = (name: string): string => readFileSync(new URL(`../../../../${name}`, import.meta.url), 'utf8')
/** The rules of a text for omfwd, without comments, each in one line. */
const rulesIn = (text: string): readonly string[] =>
  [...text.replace(/^\s*#.*\n/gm, '').matchAll(/^mail\.\S+ action\(\s*type="omfwd"[^)]*\)/gm)].map(([rule]) =>
    rule.replace(/\s+/g, ' ').replace('action( ', 'action(').replace(' )', ')'),
  )

test.each(['deploy/rsyslog/to-authd-tcp.conf', 'docs/INSTALL.md'])('%s has the rule that check advises', name => {
  expect(rulesIn(read(name))).toEqual([omfwdRule(6514)])
})

test.each(['README.md', 'docs/INSTALL.md', 'docs/MIGRATING.md', 'docs/OPERATING.md'])('%s names one port', name => {
  const ports = [...read(name).matchAll(/syslog_listen = \["127\.0\.0\.1:(\d+)"\]/g)].map(([, port]) => port)
  expect(new Set(ports).size).toBeLessThanOrEqual(1)
  for (const port of ports) expect(port).toBe('6514')
})
