import { describe, expect, test } from 'vitest'
import { formatBanner } from '../../../src/auth-relay/demo/prepare-demo.ts'
import { refusalOf } from '../../../src/auth-relay/demo/smtp-session.ts'

describe('the demo’s SMTP server takes', () => {
  const server = { domain: 'demo.example', user: 'demo' }
  const code = (address: string, relayClient?: string) => refusalOf(address, { ...server, relayClient })?.responseCode

  test('mail for its one mailbox from everybody', () => {
    expect(code('demo@demo.example')).toBeUndefined()
    expect(code('DEMO@Demo.Example')).toBeUndefined()
  })
  test('no mail for other names of its domain', () => expect(code('ann@demo.example', '')).toBe(550))
  test('no mail for others without RELAYCLIENT', () => {
    expect(code('ann@example.org')).toBe(553)
    expect(code('ann')).toBe(553)
    expect(code('demo@demo.example@example.org')).toBe(553)
    expect(code('demo@demo.example.org')).toBe(553)
  })
  test('mail for others with RELAYCLIENT, even empty', () => expect(code('ann@example.org', '')).toBeUndefined())
})

describe('the screen', () => {
  const demo = {
    config: '/home/ann/auth-relay/var/auth-relay.toml',
    ports: { pop3: 1110, pop3s: 1995, smtp: 1025, status: 8110 },
    user: 'demo',
    password: 'demo',
    domain: 'demo.example',
    separated: false,
    runtime: '/home/ann/auth-relay/var',
    dir: '/home/ann/auth-relay/var',
  }

  test('has commands whose paths are short below the working directory, and quoted where the shell needs it', () => {
    expect(formatBanner(demo, '/home/ann/auth-relay', '/nowhere/dist/auth-relay.js')).toContain(
      '\n   auth-relay show --config var/auth-relay.toml\n',
    )
    expect(formatBanner({ ...demo, config: "/tmp/it's/x.toml" }, '/home', '/nowhere/dist/x.js')).toContain(
      `--config '/tmp/it'\\''s/x.toml'`,
    )
  })
})
