import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { NewestLogins } from '../../../../src/authd/queue/newest-logins.ts'
import type { IpAddress } from '../../../../src/wire/ip-address.ts'
import { ip } from '../../../harness/addresses.ts'

type Login = { readonly ip: IpAddress; readonly place: number }
const login = (host: number, place: number): Login => ({ ip: ip(`192.0.2.${host}`), place })

describe('the newest login of each address', () => {
  test('replaces the older one, and waits behind the others', () => {
    const logins = new NewestLogins<Login>(10)
    const [old, other, young] = [login(1, 1), login(2, 2), login(1, 3)]
    for (const each of [old, other]) expect(logins.add(each)).toEqual({ replaced: undefined, dropped: undefined })
    expect(logins.add(young)).toEqual({ replaced: old, dropped: undefined })
    expect([...logins]).toEqual([other, young])
  })

  test('stays when an older one comes later', () => {
    const logins = new NewestLogins<Login>(10)
    const [old, young] = [login(1, 1), login(1, 3)]
    logins.add(young)
    expect(logins.add(old)).toEqual({ replaced: old, dropped: undefined })
    expect([...logins]).toEqual([young])
  })

  test('replaces that of the address that has waited longest, if there is no room', () => {
    const logins = new NewestLogins<Login>(2)
    const [first, second, third] = [login(1, 1), login(2, 2), login(3, 3)]
    for (const each of [first, second]) logins.add(each)
    expect([logins.hasRoomFor([second]), logins.hasRoomFor([second, third])]).toEqual([true, false])
    expect(logins.add(third)).toEqual({ replaced: undefined, dropped: first })
    // A newer login of a waiting address needs no further room.
    expect(logins.add(login(3, 4))).toEqual({ replaced: third, dropped: undefined })
    expect(logins.has(second.ip)).toBe(true)
  })

  test('is returned with the oldest first, up to a number', () => {
    const logins = new NewestLogins<Login>(10)
    const all = [1, 2, 3].map(host => login(host, host))
    for (const each of all) logins.add(each)
    expect(logins.take(2)).toEqual(all.slice(0, 2))
    expect(logins.take()).toEqual(all.slice(2))
    expect(logins.size).toBe(0)
  })
})

type Step = { readonly take: number } | { readonly host: number; readonly place: number }
const steps = fc.array(
  fc.oneof<fc.Arbitrary<Step>[]>(
    fc.record({ take: fc.nat(3) }),
    fc.record({ host: fc.integer({ min: 1, max: 8 }), place: fc.nat(50) }),
  ),
)

property.prop([steps, fc.integer({ min: 1, max: 5 })])(
  'the queue holds the same logins as a plain list',
  (plan, most) => {
    const logins = new NewestLogins<Login>(most)
    let model: Login[] = []
    for (const step of plan) {
      if ('take' in step) {
        expect(logins.take(step.take)).toEqual(model.splice(0, step.take))
        continue
      }
      const added = login(step.host, step.place)
      const other = model.find(each => each.ip === added.ip)
      const displaced = logins.add(added)
      if (other !== undefined && other.place > added.place) {
        expect(displaced).toEqual({ replaced: added, dropped: undefined })
        continue
      }
      model = model.filter(each => each !== other)
      const dropped = model.length === most ? model.shift() : undefined
      model.push(added)
      expect(displaced).toEqual({ replaced: other, dropped })
      expect([...logins]).toEqual(model)
    }
  },
)
