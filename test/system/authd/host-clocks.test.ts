import { chownSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { Cdb } from '../../../src/wire/cdb.ts'
import { parseRelayAnswer } from '../../../src/wire/services/relay-query.ts'
import { eventually } from '../../harness/eventually.ts'
import { skewedClock } from '../../harness/hosts/skewed-clock.ts'
import { GateDatabase } from '../../harness/postgres/gate-database.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { command, describeWith } from '../../harness/runner/describe-with.ts'
import { Stack, TEST_IDS } from '../../harness/stack.ts'

/**
 * Enough time for a busy machine to see the grant, and far less than the difference of the clocks.
 */
const GRANT_SECONDS = 15

describeWith([command('faketime')], 'a gate whose clock differs from the database by minutes', () => {
  let grants: GateDatabase
  beforeAll(async () => {
    grants = await GateDatabase.create()
  })
  afterAll(() => grants?.remove())

  test.each([
    ['ahead', 300],
    ['behind', -300],
  ])('%s: a grant opens at once and closes when it ends, in the query service and in the cdb', async (_, ahead) => {
    const stack = new Stack()
    onTestFinished(() => stack.stop())
    const directory = `${stack.directory}/cdb`
    mkdirSync(directory)
    if (process.geteuid?.() === 0) chownSync(directory, TEST_IDS.gate, TEST_IDS.gate)
    const cdb = `${directory}/relay.cdb`
    stack.configure({
      ...grants.settings,
      // The file is written because the grant ends, not because the interval is over.
      wrap: { query_listen: ['127.0.0.1:0'], tcprules_cdb: cdb, tcprules_interval: '1min' },
    })
    await stack.start('wrap', { prefix: skewedClock(ahead) })
    const ip = '192.0.2.7'
    const isListed = (): boolean =>
      existsSync(cdb) && [...new Cdb(readFileSync(cdb)).records()].some(({ key }) => key === ip)
    const socket = connect(stack.port('wrap', 0, 'query'), '127.0.0.1')
    onTestFinished(() => void socket.destroy())
    const queries = new Conversation('query service', socket)
    const ask = async () => {
      queries.write(`relay v=1 ip=${ip}\n`)
      return parseRelayAnswer((await queries.expect(/^/)).text)
    }
    await eventually('the gate answers from the database', async () => (await ask())?.verdict === 'no')
    await grants.grant(ip, 'ann', GRANT_SECONDS)
    await eventually('the file lists the grant', isListed, GRANT_SECONDS * 1000)
    expect(await ask()).toMatchObject({ verdict: 'yes', login: 'ann' })
    await eventually('the file does not list the grant any more', () => !isListed(), 3 * GRANT_SECONDS * 1000)
    await eventually('the gate refuses', async () => (await ask())?.verdict === 'no')
  })
})
