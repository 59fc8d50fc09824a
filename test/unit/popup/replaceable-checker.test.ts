import { expect, test } from 'vitest'
import {
  type Checker,
  type CheckRequest,
  type CheckResult,
  no,
  ReplaceableChecker,
} from '../../../src/popup/checkers/checker.ts'
import { ClientDisconnect } from '../../../src/popup/client-disconnect.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { loginOctets } from '../../../src/wire/login-event.ts'

/** A checker whose checks are ended by the test. */
class SlowChecker implements Checker {
  readonly #name: string
  readonly running: (() => void)[] = []
  isClosed = false

  constructor(name: string) {
    this.#name = name
  }

  check(): Promise<CheckResult> {
    return new Promise(resolve => this.running.push(() => resolve(no(this.#name))))
  }

  close(): void {
    this.isClosed = true
  }
}

const request = (): CheckRequest => {
  const ip = parseIpAddress('192.0.2.1')
  if (ip === undefined) throw new Error('192.0.2.1 is an address')
  const applicant = { networks: [], isKnown: false, disconnect: new ClientDisconnect() }
  return { login: loginOctets('ann'), secret: 'x', method: 'pass', timestamp: '', ip, tls: false, applicant }
}

test('new checks go to the new checker, and the old one is closed after its last check', async () => {
  const [old, next] = [new SlowChecker('old'), new SlowChecker('next')]
  const checker = new ReplaceableChecker(old)
  const first = checker.check(request())
  const replaced = checker.use(next)
  const second = checker.check(request())
  expect([old.running.length, next.running.length, old.isClosed]).toEqual([1, 1, false])
  for (const end of [...old.running, ...next.running]) end()
  expect(await first).toEqual(no('old'))
  expect(await second).toEqual(no('next'))
  await replaced
  expect([old.isClosed, next.isClosed]).toEqual([true, false])
  await checker.close()
  expect(next.isClosed).toBe(true)
})
