# TAB completes options and keys after `python -m experiments.train` (evaluate, plan), as Hydra knows them. For bash, and for zsh with bashcompinit.
_experiments_complete() {
    [[ -n "${ZSH_VERSION:-}" ]] && setopt local_options bash_rematch ksh_arrays sh_word_split
    local line="${COMP_LINE:0:$COMP_POINT}" typed word own
    local before='^[^ ]+( .*)? -m +experiments[. ]'
    COMPREPLY=()
    if [[ "$line" =~ $before([a-z]*)$ ]]; then
        word="${BASH_REMATCH[2]}"
        COMPREPLY=($(compgen -P "${2%"$word"}" -W 'train evaluate plan compare report' -- "$word"))
        COMPREPLY=("${COMPREPLY[@]/%/ }")
    elif [[ "$line" =~ $before(train|evaluate|plan)\ +(.*)$ ]]; then
        typed="${BASH_REMATCH[3]}" word="${BASH_REMATCH[3]##* }"
        [[ "$typed" =~ (-cd|--config-dir)[=\ ]([^ ]+)\  ]] && own="--config-dir=${BASH_REMATCH[2]}"
        typed="$(COMP_LINE="experiments $typed" "$1" -m experiments.train $own -sc query=bash 2>/dev/null)"
        COMPREPLY=($(compgen -W "$typed" -- "$word"))
        # Of model=qw bash replaces only what follows the =, a word of its own.
        [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
}
complete -o nospace -o default -F _experiments_complete python python3
