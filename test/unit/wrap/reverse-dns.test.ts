import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { afterEach, expect, test } from 'vitest'
import type { IpAddress } from '../../../src/wire/ip-address.ts'
import { reverseDns } from '../../../src/wrap/gate/reverse-dns.ts'
import { address } from '../../harness/hosts/network-namespace.ts'

const [PTR, A, AAAA] = [12, 1, 28]
const servers: Socket[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})

/** Labels and a final empty one (RFC 1035 section 3.1). */
const encoded = (name: string): Buffer =>
  Buffer.concat([...name.split('.').map(label => Buffer.from([label.length, ...Buffer.from(label)])), Buffer.alloc(1)])

/**
 * A name server with these records, keyed by type and name. With `silent` it does not answer other
 * queries. Returns its address.
 */
async function nameServer(records: Record<string, Buffer>, silent = false): Promise<string> {
  const server = createSocket('udp4')
  servers.push(server)
  server.on('message', (question, { port, address: from }) => {
    const end = question.indexOf(0, 12) + 5
    const labels: string[] = []
    for (let at = 12; question[at] !== 0; at += (question[at] ?? 0) + 1)
      labels.push(question.toString('latin1', at + 1, at + 1 + (question[at] ?? 0)))
    const type = question.readUInt16BE(end - 4)
    const data = records[`${type} ${labels.join('.').toLowerCase()}`]
    if (silent) return
    const header = Buffer.from(question.subarray(0, 12))
    header.writeUInt16BE(data === undefined ? 0x8183 : 0x8180, 2)
    header.writeUInt16BE(data === undefined ? 0 : 1, 6)
    header.writeUInt16BE(0, 10)
    const answer = Buffer.alloc(12)
    answer.writeUInt16BE(0xc00c, 0) // the name in the query
    answer.writeUInt16BE(type, 2)
    answer.writeUInt16BE(1, 4)
    answer.writeUInt16BE(data?.length ?? 0, 10)
    const parts = [header, question.subarray(12, end), ...(data === undefined ? [] : [answer, data])]
    server.send(Buffer.concat(parts), port, from)
  })
  server.bind(0, '127.0.0.1')
  await once(server, 'listening')
  return `127.0.0.1:${server.address().port}`
}

const CLIENT: IpAddress = address('192.0.2.7')
const SIX: IpAddress = address('2001:db8::7')
const PTR_SIX = `${PTR} 7.${'0.'.repeat(23)}8.b.d.0.1.0.0.2.ip6.arpa`
const RECORDS = {
  [`${PTR} 7.2.0.192.in-addr.arpa`]: encoded('Client.Example.NET'),
  [`${PTR} 8.2.0.192.in-addr.arpa`]: encoded('liar.example.net'),
  [`${PTR} 9.2.0.192.in-addr.arpa`]: encoded('bad name\n.example.net'),
  [PTR_SIX]: encoded('six.example.net'),
  [`${A} client.example.net`]: Buffer.from([192, 0, 2, 7]),
  [`${A} liar.example.net`]: Buffer.from([203, 0, 113, 1]),
  [`${AAAA} six.example.net`]: Buffer.from('20010db8000000000000000000000007', 'hex'),
}

test('the name of an address, in lower case; unknown if there is none or if it is not a host name', async () => {
  const lookUp = reverseDns(2000, false, [await nameServer(RECORDS)])
  expect(await lookUp(CLIENT)).toBe('client.example.net')
  expect(await lookUp(SIX)).toBe('six.example.net')
  expect(await lookUp(address('192.0.2.8'))).toBe('liar.example.net')
  expect(await lookUp(address('192.0.2.9'))).toBeUndefined()
  expect(await lookUp(address('192.0.2.10'))).toBeUndefined()
})

test('paranoid: only a name that resolves to the address', async () => {
  const lookUp = reverseDns(2000, true, [await nameServer(RECORDS)])
  expect(await lookUp(CLIENT)).toBe('client.example.net')
  expect(await lookUp(SIX)).toBe('six.example.net')
  expect(await lookUp(address('192.0.2.8'))).toBeUndefined()
})

test('a name server that does not answer: unknown within the deadline', async () => {
  const silent = await nameServer({}, true)
  const order: number[] = []
  const lookUp = async (deadline: number) => {
    expect(await reverseDns(deadline, false, [silent])(CLIENT)).toBeUndefined()
    order.push(deadline)
  }
  await Promise.all([lookUp(1000), lookUp(100)])
  expect(order).toEqual([100, 1000])
})
