import { spawnSync } from 'node:child_process'
import { afterAll, expect, test } from 'vitest'
import { TestNetwork } from '../harness/hosts/network-namespace.ts'
import { Conversation } from '../harness/processes/conversation.ts'
import { Program, run } from '../harness/processes/program.ts'
import { describeWith, NETWORK_NAMESPACES } from '../harness/runner/describe-with.ts'

describeWith([NETWORK_NAMESPACES], 'hosts of a test', () => {
  const network = new TestNetwork('192.0.2.1', '2001:db8::1')
  const a = network.client('192.0.2.10', '192.0.2.11', '2001:db8::10')
  const b = network.client('192.0.2.20', '2001:db8::20')
  afterAll(() => network.remove())

  const server = `
    const { createServer } = await import('node:net')
    const server = createServer(socket => socket.end(socket.remoteAddress + '\\r\\n'))
    server.listen(7, '::', () => console.log('listening'))
  `

  test('connect from the address that the test names, and reach no other network', async () => {
    const echo = new Program('echo', [process.execPath, '-e', server], { prefix: network.server.prefix })
    await echo.waitForLine(/^listening$/)
    const seen = async (host: typeof a, to: string, from?: string): Promise<string | undefined> => {
      const conversation = new Conversation('echo', host.connect({ host: to, port: 7, from }))
      const line = await conversation.next()
      conversation.close()
      return line?.text
    }
    expect(await seen(a, '192.0.2.1')).toBe('::ffff:192.0.2.10')
    expect(await seen(a, '192.0.2.1', '192.0.2.11')).toBe('::ffff:192.0.2.11')
    expect(await seen(b, '2001:db8::1')).toBe('2001:db8::20')
    expect(await seen(network.server, '127.0.0.1')).toBe('::ffff:127.0.0.1')
    expect(() => a.connect({ host: '127.0.0.1', port: 7 })).toThrow(/ECONNREFUSED/)
    expect(() => a.connect({ host: '203.0.113.1', port: 7 })).toThrow(/ENETUNREACH/)
    const inside = await run(['ip', '-o', 'addr', 'show', 'dev', 'eth0'], { prefix: b.prefix })
    expect(inside.lines.join()).toContain('192.0.2.20/24')
    await echo.stop()
  })

  test('are removed afterwards, also after the test process was killed', async () => {
    const ended = await run(['true'])
    spawnSync('ip', ['netns', 'add', `ar${ended.pid}-1`])
    const second = new TestNetwork('192.0.2.1')
    second.remove()
    const left = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout
    expect(left).not.toContain(`ar${ended.pid}-1`)
    expect(left).not.toContain(second.server.name)
    expect(left).toContain(a.name)
  })
})
