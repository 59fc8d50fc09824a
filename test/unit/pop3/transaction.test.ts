import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseCommand } from '../../../src/pop3/command.ts'
import {
  formatListing,
  needsSizes,
  parseLeadingNumber,
  runTransaction,
  startTransaction,
  updateReply,
} from '../../../src/pop3/transaction.ts'

const view = (sizes: readonly number[]) => ({
  count: sizes.length,
  octets: (number: number) => sizes[number - 1] ?? Number.NaN,
  uniqueId: (number: number) => `id${number}`,
  totalOctets: () => sizes.reduce((sum, size) => sum + size, 0),
})

const start = (compat: 'none' | 'qmail' = 'none', sizes: readonly number[] = [2, 5]) =>
  startTransaction(view(sizes), { compat, capabilities: ['TOP', 'UIDL'] })

const say = (state: ReturnType<typeof start>, text: string) => runTransaction(state, { kind: 'line', text })
const reply = (text: string) => [{ kind: 'reply', text }]

test('each line of a reply in TRANSACTION has at most 512 octets', () => {
  const words = ['STAT', 'LIST', 'UIDL', 'RETR', 'TOP', 'DELE', 'RSET', 'LAST', 'CAPA', 'USER', 'x']
  fc.assert(
    fc.property(
      fc.constantFrom('none' as const, 'qmail' as const),
      fc.constantFrom(...words),
      fc.string({ maxLength: 600, unit: 'binary-ascii' }),
      (compat, word, rest) => {
        for (const effect of say(start(compat), `${word} ${rest}`))
          if (effect.kind === 'reply')
            for (const each of effect.text.split('\r\n')) expect(each.length + 2).toBeLessThanOrEqual(512)
      },
    ),
  )
})

describe('TRANSACTION', () => {
  test('STAT leaves out deleted messages; qmail counts them', () => {
    for (const [compat, answer] of [
      ['none', '+OK 1 5\r\n'],
      ['qmail', '+OK 2 5\r\n'],
    ] as const) {
      const state = start(compat)
      expect(say(state, 'STAT')).toEqual(reply('+OK 2 7\r\n'))
      expect(say(state, 'dele 1')).toEqual(reply('+OK \r\n'))
      expect(say(state, 'STAT')).toEqual(reply(answer))
    }
  })

  test('errors of a message number come in the order of qmail', () => {
    const state = start()
    say(state, 'DELE 2')
    for (const verb of ['LIST', 'UIDL', 'RETR', 'TOP', 'DELE']) {
      expect(say(state, `${verb} x`)).toEqual(reply('-ERR syntax error\r\n'))
      expect(say(state, `${verb} -1`)).toEqual(reply('-ERR syntax error\r\n'))
      expect(say(state, `${verb} 0`)).toEqual(reply('-ERR messages are counted from 1\r\n'))
      expect(say(state, `${verb} 3`)).toEqual(reply('-ERR not that many messages\r\n'))
      expect(say(state, `${verb} 4294967297`)).toEqual(reply('-ERR not that many messages\r\n'))
      expect(say(state, `${verb} ${'9'.repeat(400)}`)).toEqual(reply('-ERR not that many messages\r\n'))
      expect(say(state, `${verb} 2x`)).toEqual(reply('-ERR already deleted\r\n'))
    }
    for (const verb of ['RETR', 'TOP', 'DELE']) expect(say(state, verb)).toEqual(reply('-ERR syntax error\r\n'))
  })

  test('RETR and TOP are the same effect: the second number limits the body', () => {
    const message = (bodyLines: number | undefined) => [{ kind: 'message', number: 1, bodyLines }]
    expect(say(start(), 'RETR 1')).toEqual(message(undefined))
    expect(say(start(), 'RETR 1 4')).toEqual(message(4))
    expect(say(start(), 'TOP 1')).toEqual(message(undefined))
    expect(say(start(), 'TOP 1x4')).toEqual(message(undefined))
    expect(say(start(), 'TOP 1   0 ')).toEqual(message(0))
  })

  test('LAST is raised by DELE only and reset by RSET', () => {
    const state = start()
    say(state, 'RETR 2')
    expect(say(state, 'LAST')).toEqual(reply('+OK 0\r\n'))
    say(state, 'DELE 2')
    say(state, 'DELE 1')
    expect(say(state, 'LAST')).toEqual(reply('+OK 2\r\n'))
    say(state, 'RSET')
    expect(say(state, 'LAST')).toEqual(reply('+OK 0\r\n'))
    expect(say(state, 'STAT')).toEqual(reply('+OK 2 7\r\n'))
  })

  test('a listing omits deleted messages', () => {
    const state = start('none', [1, 2, 3])
    say(state, 'DELE 2')
    expect(say(state, 'UIDL')).toEqual([{ kind: 'listing', of: 'UIDL' }])
    expect(formatListing(state.maildrop, 'LIST', state.deleted)).toBe('+OK \r\n1 1\r\n3 3\r\n.\r\n')
    expect(formatListing(state.maildrop, 'UIDL', state.deleted)).toBe('+OK \r\n1 id1\r\n3 id3\r\n.\r\n')
    expect(say(state, 'UIDL 3')).toEqual(reply('+OK 3 id3\r\n'))
  })

  test('CAPA is unknown in mode qmail; commands of AUTHORIZATION are unknown in both modes', () => {
    expect(say(start(), 'CAPA')).toEqual(reply('+OK \r\nTOP\r\nUIDL\r\n.\r\n'))
    expect(say(start('qmail'), 'CAPA')).toEqual(reply('-ERR unimplemented\r\n'))
    for (const text of ['USER a', 'PASS b', 'AUTH', 'STLS', '', ' STAT', 'STAT\t', 'ſtat']) {
      expect(say(start(), text)).toEqual(reply('-ERR unimplemented\r\n'))
    }
  })

  test('sizes are read only for replies that contain them', () => {
    const needing = ['STAT', 'LIST', 'list 1', 'UIDL', 'RETR 1', 'DELE 1', 'QUIT', 'x']
    expect(needing.filter(text => needsSizes({ kind: 'line', text }))).toEqual(['STAT', 'LIST', 'list 1'])
  })

  test('a line that is no command needs no sizes', () => {
    expect([needsSizes({ kind: 'tooLong' }), needsSizes({ kind: 'holdsNul' })]).toEqual([false, false])
  })

  test('the third overlong line ends the session without UPDATE', () => {
    const state = start()
    const tooLong = { kind: 'tooLong' } as const
    expect(runTransaction(state, tooLong)).toEqual(reply('-ERR line too long\r\n'))
    expect(runTransaction(state, tooLong)).toEqual(reply('-ERR line too long\r\n'))
    expect(runTransaction(state, tooLong)).toEqual([...reply('-ERR line too long\r\n'), { kind: 'close' }])
  })

  test('every line has one answer, and the numbers stay consistent', () => {
    const word = fc.constantFrom('STAT', 'LIST', 'UIDL', 'RETR', 'TOP', 'DELE', 'RSET', 'LAST', 'NOOP', 'CAPA', 'FOO')
    const command = fc
      .tuple(word, fc.option(fc.oneof(fc.nat(5).map(String), fc.string())))
      .map(parts => parts.join(' '))
    fc.assert(
      fc.property(fc.array(command), fc.array(fc.nat(1000), { maxLength: 4 }), (commands, sizes) => {
        const state = start('none', sizes)
        for (const text of commands) expect(say(state, text)).toHaveLength(1)
        const kept = sizes.filter((_, index) => !state.deleted.has(index + 1))
        const total = kept.reduce((sum, size) => sum + size, 0)
        expect(say(state, 'STAT')).toEqual(reply(`+OK ${kept.length} ${total}\r\n`))
      }),
    )
  })
})

describe('the reply to QUIT', () => {
  const failed = '-ERR unable to unlink all deleted messages\r\n'

  test.each([
    [0, 'none', '+OK \r\n'],
    [1, 'none', failed],
    [2, 'none', failed],
    [0, 'qmail', '+OK \r\n'],
    [2, 'qmail', `${failed}${failed}+OK \r\n`],
  ] as const)('after %i messages that stay, with compat = "%s"', (failures, compat, answer) => {
    expect(updateReply(failures, compat)).toBe(answer)
  })
})

describe('a command line', () => {
  test.each([
    ['retr  2 x ', 'RETR', '2 x ', ' 2 x '],
    ['QUIT', 'QUIT', '', ''],
    ['NOOP ', 'NOOP', '', ''],
    [' STAT', '', 'STAT', 'STAT'],
    ['', '', '', ''],
    ['d\xe9le 1', 'D\xe9LE', '1', '1'],
  ])('%j: verb, argument and the text behind the first space', (line, verb, argument, afterSpace) => {
    expect(parseCommand(line)).toEqual({ verb, argument, afterSpace })
  })

  test.each([
    ['12 3', 12, ' 3'],
    ['2x', 2, 'x'],
    ['2147483646', 2_147_483_646, ''],
    ['2147483648', 2_147_483_647, ''],
    ['99999999999999999999', 2_147_483_647, ''],
  ])('the number at the beginning of %j is at most 2^31-1', (text, value, rest) => {
    expect(parseLeadingNumber(text)).toEqual({ value, rest })
  })

  test.each(['', 'x2', ' 2', '-2'])('%j begins with no number', text => {
    expect(parseLeadingNumber(text)).toBeUndefined()
  })
})
