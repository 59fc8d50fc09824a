import { globSync, readFileSync } from 'node:fs'
import { describe, expect, expectTypeOf, test } from 'vitest'
import {
  literalsOfSource,
  logCalls,
  logCallsOfSource,
  logContexts,
  logContextsOfSource,
  logEventsOnDisk,
  logEventsPage,
} from '../../scripts/generate/log-events.ts'
import { type ContextFields, type FieldsOf, formatLogLine } from '../../src/base/log.ts'
import { FLAG_FIELDS, LOG_CONTEXTS, LOG_FIELDS, type LogLevel } from '../../src/base/log-events/row.ts'
import { LOG_EVENT_SECTIONS, LOG_EVENTS, type LogEvent, type LogEventAt } from '../../src/base/log-events.ts'
import { SECTIONS } from '../../src/settings/settings.ts'

const rows = LOG_EVENT_SECTIONS.flatMap(section => Object.entries(section.rows))

test('docs/LOG-EVENTS.md agrees with the table (else: node scripts/generate/log-events.ts)', () => {
  expect(logEventsOnDisk()).toBe(logEventsPage())
})

test('session_failed has the stack of the error in every program', () => {
  const calls = globSync('src/**/*.ts').flatMap(
    file => readFileSync(file, 'utf8').match(/log\.error\('session_failed'.*/g) ?? [],
  )
  expect(calls.length).toBeGreaterThan(2)
  expect(calls.filter(call => !call.includes('reason: stackOf(error)'))).toEqual([])
})

describe('the table', () => {
  test('has every event in one section', () => {
    expect(rows.map(([event]) => event).sort()).toEqual(Object.keys(LOG_EVENTS).sort())
  })

  test.each(rows)('%s is written in one spelling, and a warning or error has an action', (event, row) => {
    expect(event).toMatch(/^[a-z][a-z0-9]*(_[a-z0-9]+)+$/)
    expect(row.levels.length).toBeGreaterThan(0)
    expect(row.meaning).toMatch(/\.$/)
    expect(row.action !== undefined).toBe(row.levels.some(level => level === 'warn' || level === 'error'))
  })

  test('explains the fields of its events, and no others', () => {
    const used = new Set<string>(rows.flatMap(([, { fields }]) => fields))
    expect([...used].sort()).toEqual(Object.keys(LOG_FIELDS).sort())
  })

  test('has the cause in `reason`, and only more about it in `detail` or `signal`', () => {
    // The fields `rule` and `subject` of an alarm say what its `detail` is about.
    const alarms: readonly string[] = ['alarm_started', 'alarm_ended']
    const withoutReason = rows.filter(([event, row]) => {
      const fields: readonly string[] = row.fields
      const isOfProcess = fields.includes('pid') || fields.includes('status')
      const needsReason = fields.includes('detail') || (fields.includes('signal') && !isOfProcess)
      return needsReason && !fields.includes('reason') && !alarms.includes(event)
    })
    expect(withoutReason.map(([event]) => event)).toEqual([])
  })

  test('gives each value of `reason` its meaning, or none of them', () => {
    const explained = rows.flatMap(([event, { reasons, causes }]) =>
      causes === undefined ? [] : [{ event, reasons, causes }],
    )
    expect(explained.map(({ event }) => event)).toContain('session_ended')
    for (const { event, reasons, causes } of explained) {
      expect(Object.keys(causes), event).toEqual(reasons)
      for (const [reason, meaning] of Object.entries(causes))
        expect(logEventsPage()).toContain(`Reason \`${reason}\`: ${meaning}.`)
    }
  })

  test('has each value of `reason` once, in alphabetical order, and the source has it too', () => {
    const listed = rows.flatMap(([event, { reasons, fields }]) =>
      reasons === undefined ? [] : [{ event, reasons, fields }],
    )
    expect(listed.length).toBeGreaterThan(3)
    expect(listed.filter(({ fields }) => !fields.includes('reason'))).toEqual([])
    for (const { event, reasons } of listed) expect([...new Set(reasons)].sort(), event).toEqual(reasons)
    const literals = literalsOfSource()
    expect(listed.flatMap(({ reasons }) => reasons.filter(reason => !literals.has(reason)))).toEqual([])
  })

  test('has no two events whose names differ by an s alone', () => {
    const singular = (event: string): string => event.replaceAll(/s(?=_|$)/g, '')
    const events = rows.map(([event]) => event)
    expect(
      events.filter(event => events.some(other => other !== event && singular(other) === singular(event))),
    ).toEqual([])
  })

  test('gives each field one meaning', () => {
    expect(Object.entries(LOG_FIELDS).filter(([, meaning]) => /, or /.test(meaning))).toEqual([])
    const meanings = Object.values(LOG_FIELDS)
    expect(meanings.filter((meaning, place) => meanings.indexOf(meaning) !== place)).toEqual([])
  })

  test('knows the fields that are true or false, and the log writes them in one spelling', () => {
    const flags = Object.entries(LOG_FIELDS).filter(([, meaning]) => /^whether /.test(meaning))
    expect(flags.map(([name]) => name)).toEqual(FLAG_FIELDS)
    for (const name of FLAG_FIELDS) {
      const written = [true, false].map(value => formatLogLine('wrap', 'info', 'relay_allowed', { [name]: value }))
      expect(written.map(line => line.split(' ').at(-1))).toEqual([`${name}=1`, `${name}=0`])
      expect(logEventsPage()).toMatch(new RegExp(`\\| \`${name}\` \\| whether .*: \`1\` or \`0\` \\|`))
    }
  })

  test('calls every cause `reason`', () => {
    expect(Object.keys(LOG_FIELDS).filter(field => /^(err|error|cause|why|because)$/.test(field))).toEqual([])
  })
})

describe('the events of src/', () => {
  const calls = logCallsOfSource()
  const known = new Set(rows.flatMap(([event, { levels }]) => levels.map(level => `${level} ${event}`)))

  test('are written as literals, which a search finds', () => {
    expect(calls.filter(({ event }) => event === undefined)).toEqual([])
  })

  test('are in the table, with their level', () => {
    expect(calls.length).toBeGreaterThan(100)
    expect(calls.filter(({ level, event }) => !known.has(`${level} ${event}`))).toEqual([])
  })

  test('have each reason of one word in the table, and each reason of an event with fixed reasons', () => {
    const fixed = new Map<string, readonly string[] | undefined>(rows.map(([event, { reasons }]) => [event, reasons]))
    const literals = calls.flatMap(({ place, event = '', reasons }) =>
      reasons
        .filter(reason => /^\w+$/.test(reason) || fixed.get(event) !== undefined)
        .map(reason => ({ place, event, reason })),
    )
    expect(literals).toContainEqual(expect.objectContaining({ event: 'relay_allowed', reason: 'preset' }))
    expect(literals.filter(({ event, reason }) => fixed.get(event)?.includes(reason) !== true)).toEqual([])
  })

  test('are all events of the table', () => {
    const logged = new Set(calls.map(({ level, event }) => `${level} ${event}`))
    expect([...known].filter(each => !logged.has(each))).toEqual([])
  })
})

test('the fields of every line of a part are those that the source adds', () => {
  const asText = (contexts: readonly (readonly string[])[]): string[] => contexts.map(names => names.join(' ')).sort()
  expect(asText(logContextsOfSource())).toEqual(asText(LOG_CONTEXTS.map(({ fields }) => fields)))
})

describe('the events that documents and deploy/ name', () => {
  const root = new URL('../..', import.meta.url).pathname
  const files = globSync(['*.md', 'docs/*.md', 'docs/man/*', 'deploy/**/*'], { cwd: root, withFileTypes: true }).filter(
    entry => entry.isFile(),
  )
  const named = files.flatMap(({ parentPath, name }) => {
    const text = readFileSync(`${parentPath}/${name}`, 'utf8')
    return [...text.matchAll(/(?:level=(\w+) )?event=([\w-]+)/g)].map(([, level, event]) => ({ name, level, event }))
  })

  test('are in the table', () => {
    expect(named.length).toBeGreaterThan(5)
    expect(named.filter(({ event = '' }) => !Object.hasOwn(LOG_EVENTS, event))).toEqual([])
  })

  test('include the names that manual pages print in bold, except settings', () => {
    const settings = new Set(Object.values(SECTIONS).flatMap(({ rows }) => Object.keys(rows)))
    const names = files
      .filter(({ parentPath }) => parentPath.endsWith('/man'))
      .flatMap(({ parentPath, name }) => readFileSync(`${parentPath}/${name}`, 'utf8').split('\n'))
      .flatMap(line => /^\.BR? ([a-z0-9]+(?:_[a-z0-9]+)+)( |$)/.exec(line)?.[1] ?? [])
    expect(names).toContain('files_ignored')
    expect(names.filter(name => !Object.hasOwn(LOG_EVENTS, name) && !settings.has(name))).toEqual([])
  })

  test('have the level that is written beside them, because fail2ban compares a whole line', () => {
    const withLevel = named.filter(({ level }) => level !== undefined)
    expect(withLevel.map(({ name }) => name)).toContain('filter.conf')
    const calls = new Set(logCallsOfSource().map(({ level, event }) => `${level} ${event}`))
    expect(withLevel.filter(({ level, event }) => !calls.has(`${level} ${event}`))).toEqual([])
    expect(withLevel).toContainEqual({ name: 'filter.conf', level: 'info', event: 'login_failed' })
  })
})

describe('the search for events', () => {
  const found = (text: string) => logCalls('a.ts', text).map(({ level, event }) => [level, event])

  test.each([
    ["log.info('one_done', { ip, reason: 'idle' })", ['idle']],
    ["log.info('one_done', { reason: isFull ? 'full' : 'idle' })", ['full', 'idle']],
    ["formatLogLine(program, 'warn', 'one_done', { reason: 'idle' })", ['idle']],
    ["log.info('one_done', { ...more, reason })", []],
    ["log.info('one_done', { detail: 'idle' })", []],
  ])('%s: its reasons', (text, reasons) => {
    expect(logCalls('a.ts', text).map(call => call.reasons)).toEqual([reasons])
  })

  test.each([
    ["this.#options.log.warn('one_done', {})", [['warn', 'one_done']]],
    ["log().error('one_done')", [['error', 'one_done']]],
    ["createLog('popup').with({ id }).info('one_done')", [['info', 'one_done']]],
    [
      "log.info(a ? 'one_done' : 'two_done')",
      [
        ['info', 'one_done'],
        ['info', 'two_done'],
      ],
    ],
    ['log.info(event)', [['info', undefined]]],
    ["formatLogLine(program, 'warn', 'one_done', {})", [['warn', 'one_done']]],
    ['formatLogLine(program, level, event, {})', []],
    ["settings.error('no log')", []],
  ])('%s', (text, calls) => {
    expect(found(text)).toEqual(calls)
  })
})

test.each([
  ['this.#log = host.log.with({ id: client.id })', [['id']]],
  ["createLog('a').with({ id, user, ip })", [['id', 'user', 'ip']]],
  ['log.with({ ...origin })', [['…']]],
  ['log.with(fields)', [['…']]],
  ['lines.with(0, line)', []],
])('the search for fields of every line: %s', (text, contexts) => {
  expect(logContexts(text)).toEqual(contexts)
})

test('the type checker refuses an unknown event, another level and an unknown field', () => {
  expectTypeOf<'grant_stored'>().toExtend<LogEventAt<'info'>>()
  expectTypeOf<'grant_stored'>().not.toExtend<LogEventAt<'error'>>()
  expectTypeOf<'grant-stored'>().not.toExtend<LogEvent>()
  expectTypeOf<keyof FieldsOf<'grants_swept'>>().toEqualTypeOf<'grants'>()
  expectTypeOf<FieldsOf<'login_failed'>['tls']>().toEqualTypeOf<boolean | undefined>()
  expectTypeOf<boolean>().not.toExtend<FieldsOf<'grants_swept'>['grants']>()
  expectTypeOf<keyof ContextFields>().toExtend<keyof typeof LOG_FIELDS>()
  expectTypeOf<{ readonly session: string }>().not.toExtend<Required<ContextFields>>()
  expectTypeOf<LogEventAt<LogLevel>>().toExtend<LogEvent>()
  expect(LOG_EVENTS.grant_stored.levels).not.toContain('error')
  expect(LOG_EVENTS.grants_swept.fields).toEqual(['grants'])
})
